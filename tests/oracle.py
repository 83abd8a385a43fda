"""The paper's formulas in float64 NumPy, written from its text alone."""

import numpy as np


def layca_step(w, s, w0, rate):
    """One iteration of Algorithm 1 for one layer: the new weights."""
    w, s, w0 = (np.asarray(x).astype(np.float64) for x in (w, s, w0))
    dot = lambda a, b: float(np.sum(a * b))
    norm = lambda a: np.sqrt(dot(a, a))
    s = s - dot(s, w) * w / dot(w, w)
    s = s * norm(w) / norm(s)
    w = w + rate * s
    return w * norm(w0) / norm(w)


def turned(w, s, n0, rate, tangent=True, retraction="projection"):
    """The new weights of one vector under every variant of the step."""
    w, s = (np.asarray(x).astype(np.float64) for x in (w, s))
    t = s - np.sum(s * w) / np.sum(w * w) * w if tangent else s
    unit_w, unit_t = w / norm(w), t / norm(t)
    if retraction == "projection":
        v = unit_w + rate * unit_t
    else:
        v = np.cos(rate) * unit_w + np.sin(rate) * unit_t
    return n0 * v / norm(v)


def turned_by(w, direction, theta):
    """`w` turned by theta radians towards `direction`."""
    return turned(w, direction, norm(w), theta, retraction="geodesic")


def angle(a, b):
    """Radians between two vectors, accurate for the smallest (Kahan's formula)."""
    a, b = (np.asarray(x).astype(np.float64).ravel() for x in (a, b))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return 2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))


def cosine_distance(a, b):
    """1 - cos without cancellation."""
    return 2 * np.sin(angle(a, b) / 2) ** 2


def norm(a):
    return np.linalg.norm(np.asarray(a).astype(np.float64).ravel())
