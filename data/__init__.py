"""Datasets as arrays: so far the embedded MNIST-5k."""

from data.dataset import DataError, Dataset, Scale, hold_out, standardise

__all__ = ["DataError", "Dataset", "Scale", "hold_out", "standardise"]
