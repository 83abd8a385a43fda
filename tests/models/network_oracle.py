"""Computes the operations of the networks in float64 NumPy. Images are `(n, height, width, channels)`."""

import numpy as np


def convolution(x, kernel, stride=1):
    """Convolves with padding SAME: zeros around, to get `ceil(size / stride)`; an odd one goes to the end."""
    size = kernel.shape[0]
    out = [-(-length // stride) for length in x.shape[1:3]]
    padding = [max((o - 1) * stride + size - length, 0) for o, length in zip(out, x.shape[1:3], strict=True)]
    x = np.pad(x, [(0, 0), *((total // 2, total - total // 2) for total in padding), (0, 0)])
    y = np.zeros((len(x), *out, kernel.shape[3]))
    for i in range(size):
        for j in range(size):
            y += x[:, i::stride, j::stride][:, : out[0], : out[1]] @ kernel[i, j]
    return y


def max_pool(x):
    """Returns the largest of each 2 x 2 pixels."""
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


def batch_norm(x, running=None):
    """Standardises with the batch's own statistics, or with `running` ones."""
    axes = tuple(range(x.ndim - 1))
    mean, var = (x.mean(axes), x.var(axes)) if running is None else (running["mean"], running["var"])
    return (x - mean) / np.sqrt(var + 1e-3)


def relu(x):
    return np.maximum(x, 0)


def dropout(x, rate):
    """Drops the first of every ten values, instead of random ones."""
    return np.where(np.arange(x.size).reshape(x.shape) % 10 < round(10 * rate), 0, x / (1 - rate))
