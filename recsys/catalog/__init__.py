"""catalog.duckdb: what people read."""
