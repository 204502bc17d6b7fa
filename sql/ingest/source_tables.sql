-- One row per table or view of the attached source: its schema and name.
-- reads: nothing
-- makes: rows (schema_name, table_name)
select
    schema_name,
    table_name
from duckdb_tables()
where database_name = 'recsys_source'

union all

select
    schema_name,
    view_name
from duckdb_views()
where database_name = 'recsys_source' and not internal
order by all
