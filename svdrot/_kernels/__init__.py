"""What works on more than one rotation at a time, and needs loops: matrices of any size, and pairs of points.

    special_orthogonalize(m) -> r                              (B, n, n) -> (B, n, n)
    special_orthogonalize_differential(m, r, t, damping) -> d  (B, n, n) each, a float
    projection_gap(m) -> (gap, gradient)                       (B, n, n) -> (B,), (B, n, n)

are those of `operations.any_size`, for the sizes for which `svdrot._formulas` has no formula; autograd can
see through them. The contract of pairs of points stands in `operations.pairs`, that of features in
`operations.features`, that of neighbors in `operations.neighbors`. Inputs are contiguous, float32
or float64, of one dtype and device, unchecked; outputs are new tensors. An element with a NaN or an infinity
gives NaN in its own place and changes no other; nothing raises on data."""

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from svdrot.engine.door import tell_of_no_triton
from svdrot.engine.memory import in_memory as in_memory

from .cpu import pairs as pairs_cpu
from .operations import features as features_reference
from .operations import pairs as pairs_reference


def side(x: Tensor) -> Literal["cpu", "gpu", "other"]:
    """Whose kernels may be called for what is where `x` is: loops, Triton, or neither: torch operations."""
    return "cpu" if x.is_cpu else "gpu" if x.is_cuda else "other"


def select_pairs(x: Tensor, *others: Tensor | None) -> ModuleType:
    """The fastest backend for pairs of points (B, N, d), by the contract of `operations.pairs`."""
    where = side(x)
    if x.shape[-1] != 3 or where == "other" or not in_memory(x, *others):
        return pairs_reference
    return pairs_cpu if where == "cpu" else _of_gpus("pairs")


def select_features(x: Tensor) -> ModuleType:
    """The fastest backend for features of points (B, N, 3), by the contract of `operations.features`.

    On a CPU `cpu.clouds` has them, of points in the order of their cells.
    """
    return _of_gpus("features") if side(x) == "gpu" and in_memory(x) else features_reference


def select_neighbors(x: Tensor) -> ModuleType:
    """The fastest backend for neighbors among all points (B, N, d), by that of `operations.neighbors`.

    On a CPU there are trees: `svdrot.registration.Neighbors`.
    """
    return _of_gpus("neighbors") if side(x) == "gpu" and in_memory(x) else _of_operations("neighbors")


def select_polar(m: Tensor) -> ModuleType | None:
    """Kernels of Newton-Schulz for small matrices (B, m, n) on a GPU; elsewhere and without Triton None."""
    if side(m) != "gpu" or not in_memory(m) or m.dtype not in (torch.float32, torch.float64):
        return None
    return _in_triton("polar")


def _of_gpus(name: str) -> ModuleType:
    return _in_triton(name) or _of_operations(name)


@cache
def _in_triton(name: str) -> ModuleType | None:
    """Imported when needed: a CPU install has no Triton."""
    try:
        return import_module(f"{__name__}.gpu.{name}")
    except ImportError as error:
        tell_of_no_triton(error, 5)
        return None


def _of_operations(name: str) -> ModuleType:
    return import_module(f"{__name__}.operations.{name}")
