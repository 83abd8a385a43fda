"""Experiments of the paper and about it: run, logged as JSON lines in `results/`, drawn from there."""
