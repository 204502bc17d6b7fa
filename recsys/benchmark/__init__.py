"""Systems trained and judged on files: offline, no lake."""
