-- One row per table of the lake: the version that this catalog shows, and when it was built.
create table tables (table_name varchar, version bigint, catalog_built_at timestamptz);
