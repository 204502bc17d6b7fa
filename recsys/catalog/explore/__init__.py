"""`recsys explore`: read-only pages on this machine that look up a user, an item or a night."""
