"""How good a ranking is: metrics, the protocol they are taken in, and baselines."""
