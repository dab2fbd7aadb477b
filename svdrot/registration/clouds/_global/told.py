"""Poses (3, 4) in numpy as transforms, and what each makes of two clouds."""

import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svdrot._kernels import cpu
from svdrot._precision import result_dtype
from svdrot.registration.clouds._global.results import Stage
from svdrot.registration.clouds._starts import THRESHOLD
from svdrot.registration.clouds.neighbors import Neighbors
from svdrot.transform import Transform

Array = NDArray[Any]


class Clock:
    """Give the seconds since it was asked before."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self) -> float:
        before, self._last = self._last, time.perf_counter()
        return self._last - before


class Report:
    """Tell what a pose makes of two clouds, whose points are one in each voxel about a center."""

    def __init__(self, x: Array, y: Array, center: Array, voxel: float, like: Tensor):
        self._x, self._tree = torch.from_numpy(x), Neighbors(torch.from_numpy(y))
        self._center, self._limit, self._like = center, THRESHOLD * voxel, like

    def __call__(self, name: str, pose: Array, seconds: float) -> Stage:
        r, t = torch.from_numpy(pose[:, :3]), torch.from_numpy(pose[:, 3])
        with cpu.alone():
            distances = self._tree.query(self._x @ r.mT + t, 1, self._limit)[0].numpy()
        near = distances[np.isfinite(distances)]
        rmse = math.sqrt(np.square(near).mean()) if len(near) else math.nan
        there = as_transform(about(pose, -self._center), self._like)
        return Stage(name, there, len(near) / max(len(distances), 1), rmse, seconds)


def about(pose: Array, center: Array) -> Array:
    """The pose (3, 4) of clouds from whose points a center was taken."""
    shift = pose[:, 3] + pose[:, :3] @ center - center
    return np.concatenate((pose[:, :3], shift[:, None]), 1)


def as_matrix(transform: Transform) -> Array:
    """Rotation and translation of a transform (3, 4)."""
    parts = (x.detach().cpu().double().numpy() for x in (transform.rotation, transform.translation[:, None]))
    return np.concatenate([*parts], 1)


def as_transform(pose: Array, like: Tensor, scale: float = 1.0) -> Transform:
    at = torch.from_numpy(pose.copy()).to(like.device, result_dtype(like))
    return Transform(at[:, :3], at[:, 3], at.new_full((), scale))
