"""Nights as they would have been, on the lake's own past."""
