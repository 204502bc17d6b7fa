"""Prefect flows: parameters, retries, artifacts, order. The work itself lies in recsys."""
