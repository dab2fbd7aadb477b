"""Losses between two rotations, of their angle or their chord, and of the angle to an axis of revolution."""

import math

from svdrot.engine.maps import formula
from svdrot.engine.words import absolute, atan2, detached, exp, expm1, log, log1p, sqrt, where

from .turns import geodesic_distance, squared_chordal_distance, squared_geodesic_distance
from .vectors import cross, dot, length, normalized, rescaled, vector

PAIR = {"estimate": (3, 3), "truth": (3, 3)}
NAN = float("nan")


@formula(PAIR, (), scalars=1)
def huber_geodesic(estimate, truth, threshold):
    return huber(squared_geodesic_distance(estimate, truth), threshold)


@formula(PAIR, (), scalars=1)
def huber_chordal(estimate, truth, threshold):
    return huber(squared_chordal_distance(estimate, truth), threshold)


def huber(squared, threshold):
    far = detached(squared) > threshold * threshold
    distance = sqrt(where(far, squared, 1.0))
    return where(far, threshold * (distance - 0.5 * threshold), 0.5 * squared)


@formula({**PAIR, "scale": ()}, ())
def laplace_geodesic(estimate, truth, scale):
    b = where(scale > 0.0, scale, NAN)
    return geodesic_distance(estimate, truth) / b + _log_laplace_normalizer(b)


def _log_laplace_normalizer(b):
    narrow = b < 0.01  # what is subtracted from 1 is below exp(-300)
    wide = where(narrow, 1.0, b)
    k = 1.0 / wide
    over_k = (-expm1(-math.pi * k) - 2.0 * k * k * exp(-math.pi * k)) * (wide / math.pi)
    log_b = log(where(narrow, b, 1.0))
    cube = 3.0 * log_b - math.log(math.pi) - log1p(where(narrow, b * b, 0.0))
    return where(narrow, cube, log(over_k) - log1p(k * k))


def _axial(estimate, truth, axis, undirected: bool):
    a, _, missing = rescaled(axis)
    a = normalized(vector(*[where(missing, NAN, x) for x in a]))
    x, y = estimate @ a, truth @ a
    sine, cosine = length(cross(x, y)), dot(x, y)
    return atan2(sine, absolute(cosine) if undirected else cosine)


@formula({**PAIR, "axis": (3,)}, ())
def axial(estimate, truth, axis):
    return _axial(estimate, truth, axis, undirected=False)


@formula({**PAIR, "axis": (3,)}, ())
def axial_undirected(estimate, truth, axis):
    return _axial(estimate, truth, axis, undirected=True)
