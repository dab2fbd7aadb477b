"""Backends: modules with the same functions, chosen by `select`.

    special_orthogonalize(m) -> r                              (B, n, n) -> (B, n, n)
    special_orthogonalize_differential(m, r, t, damping) -> d  (B, n, n) each, a float
    projection_gap(m) -> (gap, gradient)                       (B, n, n) -> (B,), (B, n, n)

Inputs are contiguous, float32 or float64, of one dtype and device, unchecked; outputs are new tensors. A
matrix with a NaN or an infinity gives NaN in its own place and changes no other; nothing raises on data. The
formulas of 3x3 stand in `so3`, once; `reference` binds them to torch and is the specification of `cpu`, `gpu`
and `opaque`. `so2` (on CPUs `plane`) and `general` serve the other sizes. Autograd can see through
`reference`, `so2` and `general`, which therefore serve higher derivatives.
"""

import warnings
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from svdrot._checks import device_type
from svdrot.engine.memory import in_memory as in_memory
from svdrot.engine.memory import is_exporting as is_exporting

from . import cpu, general, opaque, pairs_cpu, pairs_reference, plane, reference, so2


def select(m: Tensor, *others: Tensor) -> ModuleType:
    """The fastest backend for `m`, and for what else it gets."""
    n, device = m.shape[-1], device_type(m)
    if n == 2 and has_loops(m, *others):
        return plane
    if n != 3 or device not in ("cpu", "cuda"):
        return differentiable(m)
    if in_memory(m, *others):
        return compiled(device)
    return opaque if torch.compiler.is_compiling() and not is_exporting() else reference


def has_loops(m: Tensor, *others: Tensor) -> bool:
    """Whether the loops of `cpu` are open to `m`."""
    return m.is_cpu and in_memory(m, *others)


def differentiable(m: Tensor) -> ModuleType:
    """The backend for `m` that autograd can see through."""
    return {2: so2, 3: reference}.get(m.shape[-1], general)


def select_pairs(x: Tensor, *others: Tensor | None) -> ModuleType:
    """The fastest backend for pairs of points (B, N, d), by the contract of `pairs_reference`."""
    if x.shape[-1] != 3 or x.device.type not in ("cpu", "cuda") or not in_memory(x, *others):
        return pairs_reference
    return compiled_pairs(x.device.type)


@cache
def compiled(device: str) -> ModuleType:
    """The compiled 3x3 backend of a device, imported when needed: a CPU install has no Triton."""
    if device == "cpu":
        return cpu
    try:
        from . import gpu
    except ImportError as error:
        return _without_triton(error, reference)
    return gpu


@cache
def compiled_pairs(device: str) -> ModuleType:
    if device == "cpu":
        return pairs_cpu
    try:
        from . import pairs_gpu
    except ImportError as error:
        return _without_triton(error, pairs_reference)
    return pairs_gpu


def _without_triton(error: ImportError, fallback: ModuleType) -> ModuleType:
    message = f"No GPU kernels, falling back to torch operations: {error}. Install `triton`."
    warnings.warn(message, RuntimeWarning, stacklevel=4)
    return fallback
