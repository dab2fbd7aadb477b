"""Vectors of three or more symbols, as arrays: products, lengths, directions."""

import numpy as np

from svdrot.engine.graph import by_dtype
from svdrot.engine.words import absolute, detached, maximum, root, sqrt, where

TINY = by_dtype(1.1754943508222875e-38, 2.2250738585072014e-308)  # the least normal number
EPS = by_dtype(2.0**-23, 2.0**-52)


def vector(*entries):
    """An array of symbols and numbers, of any shape."""
    return np.array(entries, dtype=object)


def dot(a, b):
    return sum((x * y for x, y in zip(a[1:], b[1:], strict=True)), a[0] * b[0])


def cross(a, b):
    return vector(a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def outer(a, b):
    return a[:, None] * b[None, :]


def multiplied(p, q):
    """Hamilton's product of quaternions w x y z: the turn `q`, then the turn `p`."""
    a, x, y, z = p
    b, u, v, w = q
    return vector(
        a * b - x * u - y * v - z * w,
        a * u + b * x + y * w - z * v,
        a * v + b * y + z * u - x * w,
        a * w + b * z + x * v - y * u,
    )


def choose(condition, a, b):
    """a where the condition holds, b elsewhere, entry by entry."""
    return vector(*[where(condition, x, y) for x, y in zip(a, b, strict=True)])


def largest(v):
    """The largest absolute value of the entries, a constant to derivatives."""
    found = absolute(v[0])
    for x in v[1:]:
        found = maximum(found, absolute(x))
    return detached(found)


def length(v):
    """Euclidean norm, with zero derivatives of every order at zero.

    The largest entry is taken out, as a constant, which changes no derivative: squares of small entries
    vanish, and the second derivative of the root of a square is its power -3/2, which leaves float32 at
    1e-13.
    """
    scale = maximum(largest(v), TINY)
    unit = v * (1.0 / scale)
    return scale * root(dot(unit, unit))


def normalized(v):
    """The direction of what is neither tiny nor huge."""
    return v * (1.0 / sqrt(dot(v, v)))


def rescaled(v):
    """`v` over its largest entry, so that squares neither overflow nor vanish; what it was multiplied by; and
    whether there is no direction.

    The divisor is a constant to derivatives. That is exact at every order, because the result is only used
    through its direction, which no positive constant changes. Below the normal numbers `v` is left as it is.
    """
    size = largest(v)
    missing = size < TINY
    k = 1.0 / where(missing, 1.0, size)
    return v * k, k, missing


def rescaled_or_first_axis(v):
    first = [1.0] + [0.0] * (len(v) - 1)
    scaled, _, missing = rescaled(v)
    return choose(missing, first, scaled)


def reject(v, unit):
    """What of `v` is perpendicular to the unit vector."""
    return v - dot(unit, v) * unit


def perpendicular(unit):
    x, y, z = unit
    return choose(absolute(x) > 0.5, vector(-y, x, 0.0), vector(0.0, -z, y))


def unit_perpendicular_part(v, unit):
    """Direction of the part of `v` perpendicular to `unit`; any such for |v| = 0. Otherwise |v| >= 1."""
    v = reject(v, unit)
    # Of an exact multiple a rejection up to 3.8 eps long is left (400,000 draws), pointing nowhere.
    collinear = detached(dot(v, v)) < (8.0 * EPS) * (8.0 * EPS)
    v = choose(collinear, perpendicular(unit), v)
    # Once leaves v.unit = eps / sin(angle between the inputs); "twice is enough" (Kahan, in Parlett, "The
    # Symmetric Eigenvalue Problem", chapter 6), without a normalization between.
    return normalized(reject(v, unit))
