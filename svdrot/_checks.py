"""Argument errors: the only place that says what an argument must be."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def check_floating(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a tensor; got {type(value).__name__}.")
    if not value.is_floating_point():
        raise TypeError(f"`{name}` must be floating point; got {value.dtype}. Call `{name}.float()` first.")


def check_shape(name: str, value: Tensor, *trailing: int) -> None:
    """`value` is a floating-point tensor of shape (..., *trailing)."""
    check_floating(name, value)
    if value.shape[value.ndim - len(trailing) :] != trailing or value.ndim < len(trailing):
        wanted = ", ".join(("...", *map(str, trailing)))
        raise ValueError(f"`{name}` must have shape ({wanted}); got {tuple(value.shape)}.")


def check_matrix(name: str, value: Tensor) -> None:
    check_floating(name, value)
    if value.ndim < 2 or 0 in value.shape[-2:]:
        raise ValueError(f"`{name}` must have shape (..., m, n) with m, n >= 1; got {tuple(value.shape)}.")


def check_square(name: str, value: Tensor) -> None:
    check_floating(name, value)
    if value.ndim < 2 or value.shape[-1] != value.shape[-2] or value.shape[-1] == 0:
        raise ValueError(f"`{name}` must have shape (..., n, n) with n >= 1; got {tuple(value.shape)}.")


def check_items(name: str, value: Tensor) -> None:
    """`value` is a floating-point tensor of shape (..., N)."""
    check_floating(name, value)
    if value.ndim == 0:
        raise ValueError(f"`{name}` must have shape (..., N); got ().")


def check_mask(name: str, value: object, n: int) -> Tensor:
    """`value`, which is a boolean tensor of shape (..., n)."""
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"`{name}` must be a boolean tensor; got {kind}.")
    if value.shape[-1:] != (n,):
        raise ValueError(f"`{name}` must have shape (..., {n}); got {tuple(value.shape)}.")
    return value


def common_batch(**batches: torch.Size) -> torch.Size:
    """What the batch dimensions of arguments broadcast to."""
    try:
        return torch.broadcast_shapes(*batches.values())
    except RuntimeError as error:
        shapes = ", ".join(f"{tuple(batch)} of `{name}`" for name, batch in batches.items())
        raise ValueError(f"Batch dimensions must broadcast; got {shapes}.") from error


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    known = list(known)
    if value not in known:
        raise ValueError(f"`{name}` must be one of {', '.join(known)}; got {value!r}.")


def check_whole(name: str, value: float, least: int = 1) -> int:
    if not least <= value < math.inf or value != int(value):
        raise ValueError(f"`{name}` must be a whole number, at least {least}; got {value}.")
    return int(value)


def check_positive(name: str, value: float) -> None:
    if (isinstance(value, Tensor) and value.numel() != 1) or not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be positive and finite; got {value}.")


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
    """Of a CPU without asking for the device, which takes 0.5 us of the 17 of a small polar factor."""
    return "cpu" if value.is_cpu else value.device.type


def to_compute(value: Tensor, dims: int) -> Tensor:
    """`value` in its compute dtype, each element (the last `dims` dimensions) all NaN if not all finite.

    So no entry that a formula skips, and no `atan2(inf, x)`, turns a bad input into a plausible output.
    """
    value = value.to(compute_dtype(value))
    finite = value.isfinite().all(tuple(range(-dims, 0)), keepdim=True)
    # A sum, for NaN in the gradient too; not `value * 0`, which Inductor takes for 0 (torch 2.13).
    return value + torch.where(finite, 0.0, torch.nan).to(value.dtype)
