"""The network and how it scores users. Needs torch and numpy, nothing else."""
