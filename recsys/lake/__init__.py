"""The lake: Delta tables under one root, the DuckDB that reads them, and packed histories."""
