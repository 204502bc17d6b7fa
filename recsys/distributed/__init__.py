"""The same work on an existing Ray cluster."""
