-- One row per table and run_date: what was delivered to it, in a database of a sink.
-- reads: nothing
-- makes: table recsys_deliveries (table_name, run_date, edition, rows, hash, lake_rows, run_id,
--    delivered_at)
create table recsys_deliveries (
    table_name text not null,
    run_date date not null,
    edition integer not null,
    rows bigint not null,
    hash text not null,
    lake_rows bigint not null,
    run_id text,
    delivered_at timestamp with time zone not null
)
