"""Skew matrices and vectors, the angle of a rotation, and rotations about an axis."""

import numpy as np

from svdrot._formulas.turns import axial
from svdrot._formulas.vectors import length, outer, vector
from svdrot.engine.maps import formula
from svdrot.engine.words import atan2


@formula({"vector": (3,)}, (3, 3))
def hat(v):
    x, y, z = v
    return vector([0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0])


@formula({"matrix": (3, 3)}, (3,))
def vee(m):
    return 0.5 * axial(m)


@formula({"matrix": (3, 3)}, ())
def rotation_angle(m):
    return atan2(length(axial(m)), np.trace(m) - 1.0)


def about(unit, cosine, sine):
    """The rotation about a unit axis by the angle of these."""
    along = outer(unit, unit)
    return along + cosine * (np.diag(vector(1.0, 1.0, 1.0)) - along) + sine * hat(unit)
