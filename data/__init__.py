"""Datasets as arrays: so far the embedded MNIST-5k."""
