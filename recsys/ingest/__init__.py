"""Interactions and items on their way into the lake: read, checked, committed."""
