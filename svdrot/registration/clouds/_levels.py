"""A cloud at some scales: one mean in each cell, normals, features. In numpy."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svdrot._kernels.cpu import clouds

Array = NDArray[Any]

# In cells: radii of what a normal and a feature are made of, with most points, itself included; and how far
# away lies what tells a normal in from out.
NORMAL_RADIUS, NORMAL_POINTS = 2.0, 30
FEATURE_RADIUS, FEATURE_POINTS = 5.0, 100
SURROUNDINGS = 25.0
OUTWARD = 2  # voxels, cells of these surroundings: of twice that, turns of the cloud change signs of normals

TOLERANCE = 1e-4  # of the distance of pairs: a step that ends ICP


@dataclass(frozen=True)
class Level:
    """Hold the cells of a cloud at one scale, and the normals there."""

    cells: clouds.Cells
    normals: Array
    kept: Array  # boolean, of the cells that it was made of

    @staticmethod
    def of(cells: clouds.Cells, outward: clouds.Cells | None = None, points: int = NORMAL_POINTS) -> "Level":
        """Estimate normals, away from `outward` if that is given, and leave out the points without."""
        normals = clouds.fit_planes(cells.points, clouds.find_around(cells, NORMAL_RADIUS, points - 1))
        defined = np.isfinite(normals[:, 0])
        if not defined.all():
            kept = {name: getattr(cells, name)[defined] for name in ("points", "counts", "keys")}
            cells, normals = cells._replace(**kept), normals[defined]
        if outward is not None:
            reach = SURROUNDINGS * cells.edge
            clouds.turn_outward(cells.points, normals, outward.points, outward.counts, reach)
        return Level(cells, normals, defined)

    @cached_property
    def features(self) -> Array:
        """Fast point feature histograms (V, 33)."""
        around = clouds.find_around(self.cells, FEATURE_RADIUS, FEATURE_POINTS - 1)
        return clouds.describe(self.cells.points, self.normals, around)

    @cached_property
    def table(self) -> clouds.Table:
        return clouds.table_of(self.cells)

    def some(self, most: int) -> Array:
        """At most so many of the points, all over the cloud."""
        points = self.cells.points
        return points[np.linspace(0, len(points) - 1, min(len(points), most)).astype(int)]

    def align(self, points: Array, poses: Array, distance: float, steps: int) -> Array:
        """Poses (h, 3, 4) of points on this cloud after steps of ICP."""
        return self.align_and_tell(points, poses, distance, steps)[0]

    def align_and_tell(self, points: Array, poses: Array, distance: float, steps: int) -> tuple[Array, Array]:
        """And what is known of them, rows of `records.ALIGNED`."""
        poses, tolerance = np.array(poses, order="C"), TOLERANCE * distance
        arguments = (self.cells, self.normals, self.table, poses, distance, steps, tolerance)
        return poses, clouds.align_poses(np.ascontiguousarray(points), *arguments)

    def measure(self, points: Array, poses: Array, distance: float) -> Array:
        """Heights of moved points over the planes at the nearest points, NaN where none is near, (h, n)."""
        return clouds.measure_poses(points, self.cells, self.normals, self.table, poses, distance)


def levels(points: Array, voxel: float, factors: tuple[int, ...]) -> list[Level] | None:
    """A cloud in cells of some multiples of the voxel, from 1 on; None if integers do not reach."""
    fine = clouds.fill_cells(points, voxel)
    if fine is None:
        return None
    outward = clouds.coarser(fine, OUTWARD)
    cells = [fine, *(clouds.coarser(fine, factor) for factor in factors[1:])]
    return [Level.of(x, outward) for x in cells]


def inverse(poses: Array) -> Array:
    back = np.swapaxes(poses[:, :, :3], 1, 2)
    return np.ascontiguousarray(np.concatenate((back, -back @ poses[:, :, 3:]), 2))
