"""Angles on the circle, in radians: within one turn, and their means."""

import math

from svdrot._formulas.vectors import vector
from svdrot.engine.graph import by_dtype
from svdrot.engine.maps import formula
from svdrot.engine.words import absolute, atan2, cos, detached, sin, where

PI = by_dtype(3.1415927410125732, math.pi)  # as rounded
NAN = float("nan")


@formula({"angle": ()}, ())
def wrap(angle):
    """The angle itself in [-pi, pi], else that of its sine and cosine; with derivative 1 everywhere."""
    fixed = detached(angle)
    inside = atan2(sin(fixed), cos(fixed)) + (angle - fixed)
    return where(absolute(fixed) <= PI, angle, inside)


@formula({"angle": (), "weight": ()}, (2,), guarded=("weight",))
def on_circle(angle, weight):
    """w (cos, sin); 0 for weight 0, whatever the angle is."""
    angle = where(weight == 0.0, 0.0, angle)
    weight = where(weight < 0.0, NAN, weight)
    return vector(weight * cos(angle), weight * sin(angle))


@formula({"sums": (2,)}, ())
def direction(sums):
    """The angle of a vector; 0 of the zero vector."""
    x, y = sums
    nowhere = (x == 0.0) & (y == 0.0)
    return atan2(where(nowhere, 0.0, y), where(nowhere, 1.0, x))
