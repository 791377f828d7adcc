"""Where a unit of work runs, and nothing else."""
