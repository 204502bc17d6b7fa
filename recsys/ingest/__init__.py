"""Interactions and items on their way into the lake: pulled, checked, committed."""
