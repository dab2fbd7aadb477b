"""The last steps of an alignment, by the points themselves, where cells of a voxel have averaged. In numpy.

Means have less noise, points have no bias and are more: what is better, their spread tells.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from svdrot.registration.clouds.neighbors import Followed, Neighbors
from svdrot.registration.clouds.surfaces import least_direction
from svdrot.representations import axis_angle_to_matrix

Array = NDArray[Any]

LOOKED_AT, MOST = 2000, 10_000  # points of the source: to see whether it pays, and to the end
SEEN = 100_000  # points of the target, to see whether it pays
NEIGHBORS = 20  # points of the target that a plane is of
LOOKS, STEPS = 3, 15
EFFICIENT = 4.685 * 1.4826  # of Tukey's weights, in medians of residuals
STILL = 1e-12  # of the reach: a step that ends it
BETTER = 0.9  # of the uncertainty before: only what is surely less is taken


def finished(x: Array, y: Array, pose: Array, reach: float, before: float) -> Array:
    """The pose (3, 4) after steps of point-to-plane ICP from points (n, 3) to planes at points of the target.

    Or as it was, if that is not surely less uncertain than `before`.
    """
    some = Planes(y[:: max(1, len(y) // SEEN)])
    looked, after, count = _stepped(x, some, pose, reach, LOOKED_AT, LOOKS)
    if not after * math.sqrt(count / min(len(x), MOST)) < BETTER * before:
        return pose
    every = some if len(some.points) == len(y) else Planes(y)
    there, after, _ = _stepped(x, every, looked, reach, MOST, STEPS)
    return there if after < BETTER * before else pose


def _stepped(
    x: Array, planes: "Planes", pose: Array, reach: float, most: int, steps: int
) -> tuple[Array, float, int]:
    """The pose after steps with so many of the points, its uncertainty, and how many points these were."""
    x = np.ascontiguousarray(x[np.linspace(0, len(x) - 1, min(len(x), most)).astype(int)])
    follow, cloud, after = Followed(planes.tree, reach), torch.from_numpy(x), math.inf
    for _ in range(steps):
        rotation, translation = torch.from_numpy(pose[:, :3].copy()), torch.from_numpy(pose[:, 3].copy())
        moved, _, places = (found.numpy() for found in follow.query(cloud, rotation, translation))
        near = places < len(planes.points)
        moved, places = moved[near], places[near]
        normals = planes.at(places)
        defined = np.isfinite(normals[:, 0])
        step = _Step.of(moved[defined], planes.points[places[defined]], normals[defined], STILL * reach)
        if step is None:
            break
        pose, after = step.after(pose), step.uncertainty
        if step.length < STILL * reach:
            break
    return pose, after, len(x)


def uncertainty(count: float, square: float, matrix: Array) -> float:
    """How far points move, root mean square, by one standard deviation of a pose.

    From the mean square of the residuals, and normal equations in lengths.
    """
    values = np.linalg.eigvalsh(matrix)
    if not count > 6 or not values[-1] > 0:
        return math.inf
    return math.sqrt(square / (1 - 6 / count) * (1 / np.maximum(values, 1e-9 * values[-1])).sum())


class Planes:
    """Hold points of a cloud, and normals there, each estimated when it is first asked for.

    So a large target costs a tree and little more.
    """

    def __init__(self, points: Array):
        self.points = np.ascontiguousarray(points)
        self.tree = Neighbors(torch.from_numpy(self.points))
        self._normals, self._known = np.empty_like(points), np.zeros(len(points), bool)

    def at(self, places: Array) -> Array:
        new = np.unique(places[~self._known[places]])
        if len(new):
            own = self.points[new]
            around = self.tree.query(torch.from_numpy(own), min(NEIGHBORS, len(self.points)))[1].numpy()
            d = self.points[around.reshape(len(new), -1)] - own[:, None]
            d -= d.mean(1, keepdims=True)
            spread = torch.from_numpy(np.swapaxes(d, 1, 2) @ d)
            self._normals[new], self._known[new] = least_direction(spread).numpy(), True
        return self._normals[places]


@dataclass(frozen=True)
class _Step:
    """Hold one step of Gauss and Newton."""

    rotation: Array
    shift: Array
    length: float  # how far it moves the points
    uncertainty: float

    @staticmethod
    def of(moved: Array, there: Array, normals: Array, least: float) -> "_Step | None":
        """The step to planes through points; None where they determine none.

        Weights fall with the heights over them to 0, at no less than `least`.
        """
        heights = ((moved - there) * normals).sum(1)
        if len(heights) < 6:
            return None
        bound = max(EFFICIENT * float(np.median(abs(heights))), least)
        weights = np.maximum(1 - (heights / bound) ** 2, 0) ** 2
        total = weights.sum()
        center = weights @ moved / total
        arms = moved - center
        radius = math.sqrt(weights @ np.square(arms).sum(1) / total)
        if not radius > 0:
            return None
        rows = np.concatenate((np.cross(arms, normals) / radius, normals), 1)
        matrix = (rows * weights[:, None]).T @ rows
        damped = matrix + 1e-9 * np.trace(matrix) * np.eye(6)
        change = -np.linalg.solve(damped, rows.T @ (weights * heights))
        rotation = axis_angle_to_matrix(torch.from_numpy(change[:3] / radius)).numpy()
        shift = center - rotation @ center + change[3:]
        spread = uncertainty(total, float(weights @ np.square(heights) / total), matrix)
        return _Step(rotation, shift, float(np.linalg.norm(change)), spread)

    def after(self, pose: Array) -> Array:
        moved = self.rotation @ pose[:, 3:] + self.shift[:, None]
        return np.concatenate((self.rotation @ pose[:, :3], moved), 1)
