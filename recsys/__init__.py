"""Nightly batch recommendations: the library. It never imports Prefect."""

__version__ = "0.1.0"
