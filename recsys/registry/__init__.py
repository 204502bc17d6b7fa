"""Models: made, judged, kept, promoted."""
