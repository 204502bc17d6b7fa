"""A night's lists: made, checked, published."""
