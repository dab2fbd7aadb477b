"""The precision to compute in: half precision is a storage format, autocast and TF32 are for networks."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def compute_dtype(value: Tensor) -> torch.dtype:
    """Numerics run in float32 or float64: half precision is a storage format here."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def result_dtype(value: Tensor) -> torch.dtype:
    """Half precision leaves as it came, except under autocast, whose rule for such functions is float32."""
    return compute_dtype(value) if is_autocast(value) else value.dtype


def is_autocast(value: Tensor) -> bool:
    """Whether autocast is on for the device of `value`; "meta" has none."""
    return not value.is_meta and torch.is_autocast_enabled(device_type(value))


def device_type(value: Tensor) -> str:
    """Device type; avoids `.device` for CPU tensors (0.5 us of the 17 us of a small polar factor)."""
    return "cpu" if value.is_cpu else value.device.type


def to_compute(value: Tensor, dims: int) -> Tensor:
    """`value` in its compute dtype, each element (the last `dims` dimensions) all NaN if not all finite.

    So no entry that a formula skips, and no `atan2(inf, x)`, turns a bad input into a plausible output.
    """
    value = value.to(compute_dtype(value))
    finite = value.isfinite().all(tuple(range(-dims, 0)), keepdim=True)
    # A sum, for NaN in the gradient too; not `value * 0`, which Inductor takes for 0 (torch 2.13).
    return value + torch.where(finite, 0.0, torch.nan).to(value.dtype)


def no_autocast(value: Tensor) -> AbstractContextManager[Any]:
    """A context in which products of what is on the device of `value` stay in their own precision."""
    return torch.autocast(device_type(value), enabled=False) if is_autocast(value) else nullcontext()


def in_full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its products in the precision of the data: not in bfloat16 for autocast, and in
    float64 where torch would take the three digits of TF32.
    """

    @functools.wraps(function)
    def wrapped(m: Tensor, *arguments: Any) -> Any:
        if is_autocast(m):
            with no_autocast(m):
                return wrapped(m, *arguments)
        if not is_reduced(m):
            return function(m, *arguments)
        results = function(*(x.double() if isinstance(x, Tensor) else x for x in (m, *arguments)))
        return results.float() if isinstance(results, Tensor) else tuple(x.float() for x in results)

    return wrapped


def is_reduced(m: Tensor) -> bool:
    """Whether torch may take float32 products in less: TF32 on a GPU, bfloat16 on some CPUs."""
    if m.dtype != torch.float32 or torch.compiler.is_compiling():
        return False
    if m.is_cpu:
        try:
            return torch.get_float32_matmul_precision() != "highest"
        except RuntimeError:  # set for some backend alone
            return True
    if not m.is_cuda:
        return False
    chosen = getattr(torch.backends.cuda.matmul, "fp32_precision", None)  # since torch 2.9
    return bool(torch.backends.cuda.matmul.allow_tf32) if chosen is None else chosen == "tf32"
