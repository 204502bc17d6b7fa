-- One row per id column of interactions, user_id and item_id: whether it holds integers.
-- reads: nothing
-- makes: rows (name, is_integer)
select
    column_name as name,
    data_type <> 'VARCHAR' as is_integer
from duckdb_columns()
where table_name = 'interactions' and column_name in ('user_id', 'item_id')
