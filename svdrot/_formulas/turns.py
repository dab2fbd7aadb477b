"""Between two rotations: angles, chords, exponential and logarithm; matrices are arrays (3, 3)."""

import numpy as np

from svdrot.engine.maps import formula
from svdrot.engine.words import atan2, detached, root, where

from .conversions import SMALL, axis_angle_to_matrix, matrix_to_axis_angle
from .projection import project
from .vectors import dot, length, vector

NAN = float("nan")
PAIR = {"a": (3, 3), "b": (3, 3)}


def relative_turn(a, b):
    """2 sin(theta) times the axis, and 2 cos(theta), of the rotation that takes `a` to `b`."""
    q = a.T @ b
    return axial(q), np.trace(q) - 1.0


def axial(q):
    """The axial vector of the skew matrix q - qᵀ, whose product with a vector is a cross product."""
    return vector(q[2, 1] - q[1, 2], q[0, 2] - q[2, 0], q[1, 0] - q[0, 1])


@formula(PAIR, ())
def geodesic_distance(a, b):
    sine, cosine = relative_turn(a, b)
    return atan2(length(sine), cosine)


@formula(PAIR, ())
def chordal_distance(a, b):
    return length((a - b).ravel())


@formula(PAIR, ())
def squared_chordal_distance(a, b):
    difference = (a - b).ravel()
    return dot(difference, difference)


@formula(PAIR, ())
def squared_geodesic_distance(a, b):
    sine, cosine = relative_turn(a, b)
    squared = 0.25 * dot(sine, sine)
    # asin(sqrt x)^2 = x + x^2 / 3 + 8 x^3 / 45 + ..., right to eps where x^3 < eps, its derivative too.
    small = (detached(squared) < SMALL) & (detached(cosine) > 0.0)
    x = where(small, squared, 0.0)
    series = x * (1.0 + x * (1 / 3 + x * (8 / 45 + x * (4 / 35))))
    angle = atan2(length(sine), cosine)
    return where(small, series, angle * angle)


@formula({"base": (3, 3), "vector": (3,)}, (3, 3))
def exp_map(base, vector):
    return base @ axis_angle_to_matrix(vector)


@formula({"base": (3, 3), "rotation": (3, 3)}, (3,))
def log_map(base, rotation):
    return matrix_to_axis_angle(base.T @ rotation)


@formula({"start": (3, 3), "end": (3, 3), "share": ()}, (3, 3), guarded=("start", "end"))
def slerp(start, end, share):
    known = share - share == 0.0
    turned = exp_map(start, where(known, share, 0.0) * log_map(start, end))
    return [where(known, x, NAN) for x in turned.ravel()]


@formula({"start": (3, 3), "end": (3, 3), "time": ()}, [(3, 3), (3,)], guarded=("start", "end"))
def geodesic_interpolant(start, end, time):
    """start exp(time w), and w = log(startᵀ end): the velocity in the frame of every rotation on the way."""
    known = time - time == 0.0
    velocity = log_map(start, end)
    moved = exp_map(start, where(known, time, 0.0) * velocity)
    return [where(known, x, NAN) for x in moved.ravel()], [where(known, x, NAN) for x in velocity]


@formula({"rotation": (3, 3), "velocity": (3,), "step": ()}, (3, 3))
def euler_step(rotation, velocity, step):
    """Orthonormal to rounding, whatever rounding has made of the rotation."""
    return project(exp_map(rotation, step * velocity))


@formula({"rotation": (3, 3), "score": (3,), "noise": (3,), "scale": (), "next_scale": ()}, (3, 3))
def reverse_diffusion_step(rotation, score, noise, scale, next_scale):
    """By the difference of squares times the score, and its root times the noise."""
    square = (scale - next_scale) * (scale + next_scale)
    return project(exp_map(rotation, square * score + root(square) * noise))


@formula({"rotation": (3, 3), "score": (3,), "scale": (), "next_scale": ()}, (3, 3))
def probability_flow_step(rotation, score, scale, next_scale):
    square = (scale - next_scale) * (scale + next_scale)
    return project(exp_map(rotation, (0.5 * square) * score))
