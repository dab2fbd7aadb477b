"""The rotation about an axis that is nearest to a 3x3 matrix: that of a 2x2 matrix in the plane across it.

With the unit axis a, B = (e, f) such that e, f and a are a right-handed frame, and P the 2x2 matrix Bᵀ M B, a
rotation about a is R = a aᵀ + B Q Bᵀ with Q in SO(2), and tr(RᵀM) = aᵀ M a + tr(QᵀP). So Q is the rotation
nearest to P, with all that `plane` says of it. Its angle is atan2(a · vee(M - Mᵀ), tr(M) - aᵀ M a), whatever
frame was chosen: so derivatives along the axis are right though B turns with it.
"""

import numpy as np

from svdrot.engine.maps import formula
from svdrot.engine.words import absolute, where

from . import plane
from .vectors import EPS, cross, largest, normalized, perpendicular, vector


def frame(unit):
    """B, (3, 2)."""
    e = normalized(perpendicular(unit))
    return np.stack((e, cross(unit, e)), 1)


def block(m, b):
    """P = Bᵀ M B, or 0 where no entry is above 32 units of rounding of the products that it is a sum of.

    So points on an oblique axis are on it, and points near one that is an axis of coordinates are not: there
    P is a part of M, without rounding.
    """
    p = b.T @ m @ b
    size = np.array([absolute(x) for x in b.ravel()], dtype=object).reshape(b.shape)
    products = size.T @ np.array([absolute(x) for x in m.ravel()], dtype=object).reshape(m.shape) @ size
    is_rounding = largest(p.ravel()) <= (32.0 * EPS) * largest(products.ravel())
    return vector(*[where(is_rounding, 0.0, x) for x in p.ravel()]).reshape(2, 2)


def nearest_about(m, unit):
    """The nearest rotation about a unit axis; the identity if all are equally near."""
    b = frame(unit)
    return unit[:, None] * unit[None, :] + b @ plane.project(block(m, b)) @ b.T


@formula({"matrix": (3, 3), "axis": (3,)}, (2, 2))
def across(matrix, axis):
    """P across a unit axis, of which the gap says how well the rotation is determined."""
    return block(matrix, frame(axis))
