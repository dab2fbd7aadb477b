"""Many poses of a few points on the planes of a surface, on a CPU: see `loops.fits`. In numpy."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from svdrot._kernels import cpu

from .loops import fits

Array = NDArray[Any]


class Planes(NamedTuple):
    """Planes (m, 7): unit normals, heights along them, points; and a grid that finds them.

    For each cell it has the number of a plane or -1; its lowest corner and its edge are (4,), its sides (3,)
    integers.
    """

    rows: Array
    cells: Array
    corner: Array
    sides: Array


def refine_poses(points: Array, planes: Planes, poses: Array, limits: Array) -> None:
    """Improve poses (h, 3, 4) in place by a point-to-plane step for each limit of the distance of pairs."""
    arguments = (*_arguments(points, planes, poses), limits.ctypes.data, len(limits))
    _share("refine_poses", len(poses), 50 * len(points) * len(limits), arguments, fits.scratch(len(points)))


def fit_poses(points: Array, planes: Planes, poses: Array, reach: float, deviation: float) -> Array:
    """About which share of points (n, 3) lies on planes within reach, (h,): each counts by its height."""
    shares = np.empty(len(poses))
    arguments = (*_arguments(points, planes, poses), reach, deviation, shares.ctypes.data)
    _share("fit_poses", len(poses), 50 * len(points), arguments, 1)
    return shares


def _arguments(points: Array, planes: Planes, poses: Array) -> tuple[int, ...]:
    arrays = (points, *planes, poses)
    assert all(x.flags.c_contiguous for x in arrays)
    x, rows, cells, corner, sides, pose = (x.ctypes.data for x in arrays)
    return x, len(points), rows, len(planes.rows), cells, corner, sides, pose


def _share(kernel: str, rows: int, numbers: int, arguments: tuple[Any, ...], scratch: int) -> None:
    if rows:
        cpu.run_rows(kernel, torch.float64, rows, numbers, arguments, scratch, 1)
