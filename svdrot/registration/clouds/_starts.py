"""Poses of which one is right: that many pairs agree on, turned all over, or near one that is given."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from svdrot.representations import quaternion_to_matrix

from ._candidates import KEEP, candidates, matched
from ._evidence import REACH
from ._levels import Level

Array = NDArray[Any]

THRESHOLD = 1.5  # voxels, of correspondences
TURNS = 960  # about 12 degrees apart
FAR_STEPS, NEAR_STEPS = (150, 12), (300, 20)  # points and iterations at a scale
GOLDEN = 1.533751168755204288118041  # the root of psi⁴ = psi + 4


class Starts(NamedTuple):
    """Hold poses (h, 3, 4), the scales they come from, and how many pairs agree with each."""

    poses: Array
    scales: Array
    inliers: Array


NONE = Starts(np.zeros((0, 3, 4)), np.zeros(0, int), np.zeros(0, int))


def correspondences(x: list[Level], y: list[Level]) -> list[tuple[Array, Array]]:
    """Points (n, 3) of both clouds that are described alike, the likest first, at each scale."""
    pairs = [matched(u.features, v.features) for u, v in zip(x, y, strict=True)]
    return [(u.cells.points[i], v.cells.points[j]) for u, v, (i, j) in zip(x, y, pairs, strict=True)]


def by_pairs(pairs: list[tuple[Array, Array]], edges: list[float]) -> Starts:
    """Poses that many pairs agree on, those of each scale."""
    found = [candidates(*some, THRESHOLD * edge, KEEP) for some, edge in zip(pairs, edges, strict=True)]
    scales = np.repeat(np.arange(len(found)), [len(poses) for poses, _ in found])
    poses, inliers = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Starts(poses, scales, inliers)


def all_over(x: list[Level], y: list[Level]) -> Starts:
    """Turns all over, the middles of both clouds laid on each other, after steps at the second scale."""
    turns = _spread(TURNS)
    shifts = y[0].cells.points.mean(0) - turns @ x[0].cells.points.mean(0)
    poses = np.concatenate((turns, shifts[:, :, None]), 2)
    poses = _stepped(x[1], y[1], poses, *FAR_STEPS)
    return Starts(poses, np.zeros(TURNS, int), np.zeros(TURNS, int))


def near(x: list[Level], y: list[Level], pose: Array) -> Starts:
    """A pose (3, 4) after steps from each scale on to the finer ones: which a start deserves is not known."""
    found = []
    for first in range(len(x)):
        moved = pose[None]
        for k in range(first, 0, -1):
            moved = _stepped(x[k], y[k], moved, *NEAR_STEPS)
        found.append(moved)
    return Starts(np.concatenate(found), np.zeros(len(x), int), np.zeros(len(x), int))


def _stepped(x: Level, y: Level, poses: Array, points: int, steps: int) -> Array:
    return y.align(x.some(points), poses, REACH * y.cells.edge, steps)


def _spread(n: int) -> Array:
    """Rotations (n, 3, 3), evenly spread (Alexa, "Super-Fibonacci Spirals", CVPR 2022)."""
    s = np.arange(n) + 0.5
    r, q = np.sqrt(s / n), np.sqrt(1 - s / n)
    a, b = 2 * np.pi * s / np.sqrt(2), 2 * np.pi * s / GOLDEN
    quaternions = np.stack((q * np.cos(b), r * np.sin(a), r * np.cos(a), q * np.sin(b)), 1)
    return quaternion_to_matrix(torch.from_numpy(quaternions)).numpy()
