"""Computes the paper's formulas in float64 NumPy, written from its text alone."""

import numpy as np


def layca_step(w, s, w0, rate):
    """Returns the new weights of a layer after one iteration of Algorithm 1."""
    w, s, w0 = (np.asarray(x).astype(np.float64) for x in (w, s, w0))
    dot = lambda a, b: float(np.sum(a * b))
    norm = lambda a: np.sqrt(dot(a, a))
    s = s - dot(s, w) * w / dot(w, w)
    s = s * norm(w) / norm(s)
    w = w + rate * s
    return w * norm(w0) / norm(w)


# From a rate to the factors of the weights and of the step in their sum, both of length 1.
RETRACTIONS = {"projection": lambda rate: (1, rate), "geodesic": lambda rate: (np.cos(rate), np.sin(rate))}


def turned(w, s, n0, rate, tangent=True, retraction="projection"):
    """Returns the new weights of one vector, for every variant of the step."""
    if retraction not in RETRACTIONS:
        raise ValueError(f"tests/oracle.py has no formula for the retraction {retraction!r}")
    along, across = RETRACTIONS[retraction](rate)
    w, s = (np.asarray(x).astype(np.float64) for x in (w, s))
    t = s - np.sum(s * w) / np.sum(w * w) * w if tangent else s
    v = along * w / norm(w) + across * t / norm(t)
    return n0 * v / norm(v)


def turned_by(w, direction, theta):
    """Turns `w` by theta radians towards `direction`."""
    return turned(w, direction, norm(w), theta, retraction="geodesic")


def angle(a, b):
    """Returns the angle between two vectors in radians, accurate also if it is tiny (Kahan's formula)."""
    a, b = (np.asarray(x).astype(np.float64).ravel() for x in (a, b))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return 2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))


def cosine_distance(a, b):
    """Returns 1 - cos of the angle, without cancellation."""
    return 2 * np.sin(angle(a, b) / 2) ** 2


def norm(a):
    return np.linalg.norm(np.asarray(a).astype(np.float64).ravel())
