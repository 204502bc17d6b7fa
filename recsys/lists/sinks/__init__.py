"""Places besides the lake that get lists: Parquet files, a DuckDB file, Postgres."""
