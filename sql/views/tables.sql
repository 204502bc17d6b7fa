-- One row per table of the lake: the version that this catalog shows, when it was built, and where.
create table tables (table_name varchar, version bigint, catalog_built_at timestamptz, lake varchar);
