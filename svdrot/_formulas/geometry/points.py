"""Distances of points: of two, and of one that two poses move, which is that of neither image.

x goes to s R x + t by one pose and to s' R' x + t' by the other: apart by (s R - s' R') x + (t - t'), in
which large translations cancel first.
"""

from svdrot._formulas.vectors import dot, length
from svdrot.engine.maps import formula

_POSE = {"rotation": (3, 3), "translation": (3,), "scale": ()}
_BOTH = _POSE | {f"other_{name}": shape for name, shape in _POSE.items()}
_MOVED = {**_BOTH, "point": (3,)}


@formula({"a": (3,), "b": (3,)}, (), guarded=False)
def distance(a, b):
    return length(a - b)


@formula(_MOVED, (), guarded=[*_BOTH])
def moved_apart(rotation, translation, scale, other_rotation, other_translation, other_scale, point):
    a, b = (rotation, translation, scale), (other_rotation, other_translation, other_scale)
    return length(_displacement(a, b, point))


@formula(_MOVED, (), guarded=[*_BOTH])
def squared_moved_apart(rotation, translation, scale, other_rotation, other_translation, other_scale, point):
    a, b = (rotation, translation, scale), (other_rotation, other_translation, other_scale)
    apart = _displacement(a, b, point)
    return dot(apart, apart)


def _displacement(a, b, point):
    (r, t, s), (q, u, k) = a, b
    return (s * r - k * q) @ point + (t - u)
