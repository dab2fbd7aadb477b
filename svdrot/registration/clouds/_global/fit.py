"""Poses and sizes that fit best: the size as a seventh unknown of point-to-plane ICP, both ways. In numpy.

A plane at a point of a round surface lies outside of it, so that either cloud looks too small beside the
other's planes: with as many pairs of both ways neither does.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from svdrot.registration.clouds._finish import EFFICIENT, STILL, Planes
from svdrot.representations import axis_angle_to_matrix

Array = NDArray[Any]

FEWEST = 10  # pairs
LARGEST = 0.1  # change of the size in a step


class Similarity:
    """Hold the rotation and the translation (3, 4) of a cloud that is multiplied by a factor first."""

    def __init__(self, pose: Array, factor: float = 1.0):
        self.pose, self.factor = pose, factor

    def apply(self, points: Array) -> Array:
        return self.factor * points @ self.pose[:, :3].T + self.pose[:, 3]

    def unapply(self, points: Array) -> Array:
        return (points - self.pose[:, 3]) @ self.pose[:, :3] / self.factor

    def between(self, middle: Array, away: Array) -> Array:
        """The pose of clouds from whose points a middle and another were taken, after the factor."""
        shift = self.pose[:, 3] + away - self.factor * self.pose[:, :3] @ middle
        return np.concatenate((self.pose[:, :3], shift[:, None]), 1)

    def after(self, change: Array, center: Array, radius: float) -> "Similarity":
        """Followed by (rotation vector times radius, translation, growth times radius) about a center."""
        turn = axis_angle_to_matrix(torch.from_numpy(change[:3] / radius)).numpy()
        growth = 1 + float(np.clip(change[6] / radius, -LARGEST, LARGEST))
        shift = growth * turn @ (self.pose[:, 3] - center) + center + change[3:6]
        return Similarity(np.concatenate((turn @ self.pose[:, :3], shift[:, None]), 1), self.factor * growth)


def fitted(x: "Planes", y: "Planes", start: Similarity, reach: float, most: int, steps: int) -> Similarity:
    """The similarity after steps, with at most so many points of each cloud, paired up to a reach."""
    some = [np.ascontiguousarray(z.points[_evenly(len(z.points), most)]) for z in (x, y)]
    found = start
    for _ in range(steps):
        pairs = _pairs(some[0], some[1], x, y, found, reach)
        step = None if pairs is None else _solved(*pairs, STILL * reach)
        if step is None:
            break
        change, center, radius = step
        found = found.after(change, center, radius)
        if np.linalg.norm(change) < STILL * reach:
            break
    return found


def _evenly(n: int, most: int) -> Array:
    return np.linspace(0, n - 1, min(n, most)).astype(int)


def _pairs(
    a: Array, b: Array, x: "Planes", y: "Planes", at: Similarity, reach: float
) -> tuple[Array, Array, Array, Array] | None:
    """Places, normals, heights, and weights of pairs of both ways, (n, 3) and (n,), in y's frame.

    Of the points of b over the planes of x normals and heights have the other sign: how the planes move
    beneath them.
    """
    there, back = at.apply(a), at.unapply(b)
    near, turned = _over(there, y, reach), _over(back, x, reach / at.factor)
    if near is None or turned is None:
        return None
    (p, n, h), (q, m, g) = near, turned
    places, normals = np.concatenate((there[p], b[q])), np.concatenate((n, m @ at.pose[:, :3].T))
    heights = np.concatenate((h, -at.factor * g))
    weights = np.concatenate((np.full(len(p), 1 / len(p)), np.full(len(q), 1 / len(q))))
    return places, normals, heights, weights


def _over(points: Array, planes: "Planes", reach: float) -> tuple[Array, Array, Array] | None:
    """Which points have a plane near, its normal, and the height over it; None if they are few."""
    places = planes.tree.query(torch.from_numpy(points), 1, reach)[1].numpy()
    (near,) = np.nonzero(places < len(planes.points))
    normals = planes.at(places[near])
    known = np.isfinite(normals[:, 0])
    near, normals = near[known], normals[known]
    if len(near) < FEWEST:
        return None
    return near, normals, ((points[near] - planes.points[places[near]]) * normals).sum(1)


def _solved(
    places: Array, normals: Array, heights: Array, weights: Array, least: float
) -> tuple[Array, Array, float] | None:
    """A step of Gauss and Newton, and its center and radius; None where they are none."""
    bound = max(EFFICIENT * float(np.median(np.abs(heights))), least)
    w = weights * np.maximum(1 - (heights / bound) ** 2, 0) ** 2
    total = w.sum()
    center = w @ places / total
    arms = places - center
    radius = math.sqrt(w @ np.square(arms).sum(1) / total)
    if not radius > 0:
        return None
    along = (arms * normals).sum(1, keepdims=True) / radius
    rows = np.concatenate((np.cross(arms, normals) / radius, normals, along), 1)
    matrix = (rows * w[:, None]).T @ rows
    damped = matrix + 1e-9 * np.trace(matrix) * np.eye(7)
    return -np.linalg.solve(damped, rows.T @ (w * heights)), center, radius
