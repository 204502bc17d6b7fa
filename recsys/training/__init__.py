"""Training a model from packed histories. Needs torch and numpy, nothing else."""
