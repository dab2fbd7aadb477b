"""The transform that fits a few pairs of points best: all pairs in one formula, a cloud in each lane.

Pairs are (x, y) with weights w; see `svdrot.registration.procrustes` for the mathematics. What counts for
nothing may be anything: a pair of weight 0 whose coordinates are not finite is left out. Coordinates are
taken relative to the first pair that counts, so that nothing cancels far from the origin."""

from functools import cache
from itertools import product

import torch

from svdrot.engine.maps import Map
from svdrot.engine.program import COMPUTED, Program, program
from svdrot.engine.words import absolute, detached, where

from . import axes
from .projection import project
from .vectors import choose, dot, outer, reject, vector

MOST_PAIRS = (
    8  # a kernel of 8 compiles in half a second, and is four times as fast as the loops; of 16 in 4 s
)

NAN = float("nan")


def _alignment(pairs: int, weighted: bool, centered: bool, scaled: bool) -> Map:
    """(x (N, 3), y (N, 3), weights (N)) -> rotation, translation, scale, covariance."""

    def align(x, y, w=None):
        return _aligned(x, y, w, centered, scaled)

    inputs = {"source": (pairs, 3), "target": (pairs, 3)} | ({"weights": (pairs,)} if weighted else {})
    how = f"{pairs} pairs{', weighted' * weighted}{', centered' * centered}{', scaled' * scaled}"
    return Map(
        align, inputs, [(3, 3), (3,), (), (3, 3)], guarded=False, name=f"{__name__}.alignment of {how}"
    )


# Whole, and no cache that is filled when it is asked: Dynamo reads a table, and cannot make a map.
ALIGNMENTS = {
    how: _alignment(*how)
    for how in product(range(1, MOST_PAIRS + 1), (False, True), (False, True), (False, True))
}


def _aligned(x, y, w, centered: bool, scaled: bool):
    n = len(x)
    if w is None:
        origin = (x[0], y[0]) if centered else (vector(0.0, 0.0, 0.0),) * 2
        share = [1.0 / n] * n
    else:
        w = [where(weight < 0.0, NAN, weight) for weight in w]
        x, y = _without_ignored(x, y, w)
        origin = _first_that_counts(x, y, w) if centered else (vector(0.0, 0.0, 0.0),) * 2
        total = sum(w[1:], w[0])
        some = total != 0.0
        share = [weight / where(some, total, 1.0) for weight in w]
    p, q = (vector(*map(detached, o)) for o in origin)
    x, y = [a - p for a in x], [b - q for b in y]
    a, b = _mean(share, x), _mean(share, y)
    if not centered:
        a = b = vector(0.0, 0.0, 0.0)
    x, y = [v - a for v in x], [v - b for v in y]
    covariance = vector([0.0] * 3, [0.0] * 3, [0.0] * 3)
    for s, u, v in zip(share, x, y, strict=True):
        covariance = covariance + outer(s * v, u)
    variance = sum((s * dot(u, u) for s, u in zip(share, x, strict=True)), 0.0) if scaled else 0.0
    return _posed(p + a, q + b, covariance, variance, centered, scaled)


@cache
def pose(centered: bool, scaled: bool, dtype: torch.dtype) -> Program:
    """(moments (17), pivots (6)), as in `svdrot._kernels.operations.pairs`, -> rotation, translation and
    scale in a dtype; covariance and again the rotation in that of the moments."""

    def place(m, pivots):
        centroids, covariance, variance = m[1:7] + pivots, m[7:16].reshape(3, 3), m[16]
        found = _posed(centroids[:3], centroids[3:], covariance, variance, centered, scaled)
        return *found, found[0]

    how = f"moments{', centered' * centered}{', scaled' * scaled}, in {dtype}"
    results = [(3, 3), (3,), (), (3, 3), (3, 3)]
    follows = [dtype] * 3 + [COMPUTED] * 2
    return program(place, [(17,), (6,)], results, name=f"{__name__}.pose of {how}", follows=follows)


def _posed(start, end, covariance, variance, centered: bool, scaled: bool):
    """Rotation, translation, scale and covariance, from centroids and second moments about them."""
    rotation = project(covariance)
    scale = 1.0
    if scaled:
        spread = variance != 0.0
        along = dot(rotation.ravel(), covariance.ravel())
        scale = where(spread, along / where(spread, variance, 1.0), 1.0)
    translation = end - scale * (rotation @ start) if centered else vector(0.0, 0.0, 0.0)
    return rotation, translation, scale, covariance


def _pose_about(centered: bool, scaled: bool, planar: bool) -> Map:
    """(moments (17), pivots (6), axis (3)) -> rotation, translation, scale and covariance.

    The motions turn about the axis alone, a unit vector a, and do not go along it if `planar`. The rotation R
    is nearest to the covariance C among those, whatever the translation: heights a·x stay as they are. With p
    and q the centroids the translation is t = q - s R p, which takes one to the other. A planar one is
    t - a (a·t): centroids meet across the axis, and keep the difference of their heights. Then the squared
    distances have along the axis those of the heights themselves, not of heights about their means, and the
    scale is (tr(RᵀC) + (a·p)(a·q)) / (v + (a·p)²) instead of tr(RᵀC) / v. Of a free rotation the trace is not
    negative. Here heights may be opposite; then the best scale that is not negative is 0.
    """

    def place(moments, pivots, axis):
        centroids, covariance, variance = moments[1:7] + pivots, moments[7:16].reshape(3, 3), moments[16]
        start, end = centroids[:3], centroids[3:]
        rotation = axes.nearest_about(covariance, axis)
        scale = 1.0
        if scaled:
            along = dot(rotation.ravel(), covariance.ravel())
            if planar:
                height = dot(axis, start)
                along, variance = along + height * dot(axis, end), variance + height * height
            spread = variance != 0.0
            scale = where(spread, where(along < 0.0, 0.0, along) / where(spread, variance, 1.0), 1.0)
        translation = end - scale * (rotation @ start) if centered else vector(0.0, 0.0, 0.0)
        return rotation, reject(translation, axis) if planar else translation, scale, covariance

    inputs = {"moments": (17,), "pivots": (6,), "axis": (3,)}
    how = f"moments{', centered' * centered}{', scaled' * scaled}{', planar' * planar}"
    return Map(place, inputs, [(3, 3), (3,), (), (3, 3)], name=f"{__name__}.poses about an axis of {how}")


POSES_ABOUT = {
    how: _pose_about(*how) for how in product((False, True), repeat=3)
}  # no cache: Dynamo reads it


def _mean(share, points):
    return sum((s * point for s, point in zip(share, points, strict=True)), vector(0.0, 0.0, 0.0))


def _without_ignored(x, y, w):
    """Pairs of weight 0 whose coordinates are not finite become zeros."""
    kept = []
    for a, b, weight in zip(x, y, w, strict=True):
        size = detached(sum((absolute(c) for c in (*a, *b)), 0.0))
        ignored = (weight == 0.0) & ~(size - size == 0.0)
        zero = vector(0.0, 0.0, 0.0)
        kept.append((choose(ignored, zero, a), choose(ignored, zero, b)))
    return [a for a, _ in kept], [b for _, b in kept]


def _first_that_counts(x, y, w):
    a, b = vector(0.0, 0.0, 0.0), vector(0.0, 0.0, 0.0)
    for u, v, weight in reversed([*zip(x, y, w, strict=True)]):
        counts = weight != 0.0
        a, b = choose(counts, u, a), choose(counts, v, b)
    return a, b
