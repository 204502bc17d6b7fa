"""A run: its frame, its row in `runs`, and what it says at its end."""
