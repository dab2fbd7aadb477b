"""Two columns and what stands for them: 6D, 5D, 2-vec. The third column is their cross product."""

import math

from svdrot.engine.maps import formula
from svdrot.engine.words import detached, sqrt, where

from .vectors import (
    choose,
    cross,
    dot,
    largest,
    normalized,
    perpendicular,
    rescaled,
    rescaled_or_first_axis,
    unit_perpendicular_part,
    vector,
)


@formula({"rotation_6d": (6,)}, (3, 3))
def rotation_6d_to_matrix(rotation_6d):
    return _gram_schmidt(rotation_6d[:3], rotation_6d[3:])


def _gram_schmidt(x, y):
    x = normalized(rescaled_or_first_axis(x))
    y = unit_perpendicular_part(rescaled(y)[0], x)
    return vector(x, y, cross(x, y)).T


@formula({"matrix": (3, 3)}, (6,))
def matrix_to_rotation_6d(matrix):
    return matrix[:, :2].T


@formula({"rotation_5d": (5,)}, (3, 3))
def rotation_5d_to_matrix(rotation_5d):
    first, raw = rotation_5d[:2], rotation_5d[2:]
    u, _, missing = rescaled(raw)
    # |u| without overflow, and with the derivatives of |u|: they do not depend on the constant divided by.
    n = where(missing, 0.0, largest(raw) * sqrt(where(missing, 1.0, dot(u, u))))
    # Twice the first column, times n where 1 / n might overflow: a positive factor does not turn it.
    below = detached(n) < 1.0
    over, under = where(below, 1.0, n), where(below, n, 1.0)
    third = where(below, under * under - 1.0, over - 1.0 / over)
    return _gram_schmidt(vector(2.0 * under * first[0], 2.0 * under * first[1], third), u)


@formula({"matrix": (3, 3)}, (5,))
def matrix_to_rotation_5d(matrix):
    x, y, z = matrix[:, 0]
    return vector(x, y, *((z + sqrt(1.0 + z * z)) * matrix[:, 1]))


@formula({"rotation_2vec": (6,)}, (3, 3))
def rotation_2vec_to_matrix(rotation_2vec):
    first = normalized(rescaled_or_first_axis(rotation_2vec[:3]))
    second, _, missing = rescaled(rotation_2vec[3:])
    second = normalized(choose(missing, perpendicular(first), second))
    p, m = first + second, first - second
    acute = detached(dot(first, second)) >= 0.0
    longer = normalized(choose(acute, p, m))
    shorter = unit_perpendicular_part(choose(acute, m, p), longer)
    p, m = choose(acute, longer, shorter), choose(acute, shorter, longer)
    return vector((p + m) * math.sqrt(0.5), (p - m) * math.sqrt(0.5), cross(m, p)).T
