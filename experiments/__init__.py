"""Reproduces and extends the experiments of the paper; draws figures from logs in `results/`."""
