-- One row per staged row that another one of the batch is, word for word: it is held once, as if that
-- one were in the lake.
-- reads: repeated_rows
-- makes: rows of rows_in_lake
insert into rows_in_lake
select seq
from repeated_rows
where is_exact
