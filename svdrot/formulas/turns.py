"""Angles between rotations, and the exponential map; matrices are arrays (3, 3), acting on columns."""

import numpy as np

from svdrot.engine.words import atan2

from .vectors import length, vector


def relative_turn(a, b):
    """2 sin(theta) times the axis, and 2 cos(theta), of the rotation that takes `a` to `b`."""
    q = a.T @ b
    return axial(q), np.trace(q) - 1.0


def axial(q):
    """Of the skew matrix q - qᵀ, whose product with a vector is a cross product."""
    return vector(q[2, 1] - q[1, 2], q[0, 2] - q[2, 0], q[1, 0] - q[0, 1])


def geodesic_distance(a, b):
    sine, cosine = relative_turn(a, b)
    return atan2(length(sine), cosine)


def chordal_distance(a, b):
    return length((a - b).ravel())
