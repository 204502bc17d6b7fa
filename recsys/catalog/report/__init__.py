"""The report: one page on a night's lists, read from the catalog by SQL alone."""
