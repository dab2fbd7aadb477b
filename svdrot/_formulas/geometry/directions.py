"""Between directions: angles, the smallest rotation from one to another, and the view of a camera.

A vector without a direction, zero, is at no angle to any other.
"""

import numpy as np

from svdrot._formulas.vectors import (
    choose,
    cross,
    dot,
    length,
    normalized,
    outer,
    rescaled,
    unit_perpendicular_part,
    vector,
)
from svdrot.engine.maps import Map, formula
from svdrot.engine.words import atan2, detached, where

from .skew import hat

IDENTITY = vector([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
X, Z = IDENTITY[0], IDENTITY[2]
PAIR = {"a": (3,), "b": (3,)}


@formula(PAIR, ())
def angle_between(a, b):
    a, b = _rescaled(a, b)
    return atan2(length(cross(a, b)), dot(a, b))


def _rescaled(a, b):
    """Two vectors of harmless lengths; the same one twice if either has no direction."""
    a, _, nowhere = rescaled(a)
    b, _, missing = rescaled(b)
    missing = missing | nowhere
    return choose(missing, X, a), choose(missing, X, b)


@formula(PAIR, (3, 3))
def rotation_between(a, b):
    """With c = a·b, up to a right angle c I + [a x b] + (a x b)(a x b)ᵀ / (1 + c), which is smooth.

    Beyond it, with w = b - c a and its direction p, I - (1 - c)(a aᵀ + p pᵀ) + w aᵀ - a wᵀ. There p is made
    perpendicular to a, so that this is a rotation to rounding although b may be nearly -a, and then any p;
    it takes a to c a + w = b whatever p is, and so do derivatives.
    """
    a, b = map(normalized, _rescaled(a, b))
    c, v = dot(a, b), cross(a, b)
    acute = detached(c) >= 0.0
    near = c * IDENTITY + hat(v) + (1.0 / (1.0 + where(acute, c, 0.0))) * outer(v, v)
    w, p = b - c * a, unit_perpendicular_part(b, a)
    far = IDENTITY + (c - 1.0) * (outer(a, a) + outer(p, p)) + (outer(w, a) - outer(a, w))
    return choose(acute, near.ravel(), far.ravel())


def _look_at(convention: str) -> Map:
    """Rows are the axes of the camera: right, down, forward in OpenCV; right, up, backward in OpenGL."""

    def look_at(eye, target, up):
        forward, _, missing = rescaled(0.5 * target - 0.5 * eye)
        forward = normalized(choose(missing, Z, forward))
        up = unit_perpendicular_part(rescaled(up)[0], forward)
        right = cross(forward, up)
        rows = (right, -up, forward) if convention == "opencv" else (right, up, -forward)
        return choose(missing, IDENTITY.ravel(), np.concatenate(rows))

    inputs = {"eye": (3,), "target": (3,), "up": (3,)}
    return Map(look_at, inputs, (3, 3), name=f"{__name__}.look_at_of_{convention}")


LOOK_AT = {convention: _look_at(convention) for convention in ("opencv", "opengl")}
