"""What works on more than one rotation at a time, and needs loops: matrices of any size, and pairs of points.

    special_orthogonalize(m) -> r                              (B, n, n) -> (B, n, n)
    special_orthogonalize_differential(m, r, t, damping) -> d  (B, n, n) each, a float
    projection_gap(m) -> (gap, gradient)                       (B, n, n) -> (B,), (B, n, n)

are those of `operations.any_size`, for the sizes for which `svdrot._formulas` has no formula; autograd can
see through them. The contract of pairs of points stands in `operations.pairs`. Inputs are contiguous, float32
or float64, of one dtype and device, unchecked; outputs are new tensors. An element with a NaN or an infinity
gives NaN in its own place and changes no other; nothing raises on data."""

import warnings
from functools import cache
from types import ModuleType

from torch import Tensor

from svdrot.engine.memory import in_memory as in_memory
from svdrot.engine.memory import is_exporting as is_exporting

from .cpu import pairs as pairs_cpu
from .operations import pairs as pairs_reference


def select_pairs(x: Tensor, *others: Tensor | None) -> ModuleType:
    """The fastest backend for pairs of points (B, N, d), by the contract of `operations.pairs`."""
    if x.shape[-1] != 3 or x.device.type not in ("cpu", "cuda") or not in_memory(x, *others):
        return pairs_reference
    return compiled_pairs(x.device.type)


@cache
def compiled_pairs(device: str) -> ModuleType:
    if device == "cpu":
        return pairs_cpu
    try:
        from .gpu import pairs as pairs_gpu
    except ImportError as error:
        return _without_triton(error, pairs_reference)
    return pairs_gpu


def _without_triton(error: ImportError, fallback: ModuleType) -> ModuleType:
    message = f"No GPU kernels, falling back to torch operations: {error}. Install `triton`."
    warnings.warn(message, RuntimeWarning, stacklevel=4)
    return fallback
