-- One row per staged row of a user who was erased: it is not ingested, like a row in the lake.
-- reads: erasures, rows_in_lake, staged_rows
-- makes: rows of rows_in_lake
insert into rows_in_lake
with users as (
    select distinct user_id
    from staged_rows
),

erased_users as (
    select users.user_id
    from users
    inner join erasures
        on erasures.user_hash = sha256(erasures.salt || ':' || cast(users.user_id as varchar))
)

select staged_rows.rowid as seq
from staged_rows
semi join erased_users using (user_id)
anti join rows_in_lake on staged_rows.rowid = rows_in_lake.seq
