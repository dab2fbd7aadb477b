"""Argument errors: the only place that says what an argument must be."""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._stand_ins import why_not


def check_floating(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a tensor; got {kind(value)}.")
    if not value.is_floating_point():
        raise TypeError(f"`{name}` must be floating point; got {value.dtype}: convert it first.")


def kind(value: object) -> str:
    """What came in place of a tensor, and how to make one of it. Arrays come here only beside tensors."""
    name = type(value).__name__
    if isinstance(value, np.ndarray):
        return f"{name} {why_not(value) or 'beside tensors: give one kind or the other'}"
    if isinstance(value, (list, tuple, Real)):
        return f"{name}: `torch.tensor` or `numpy.array` make one of numbers"
    return name


def check_number(name: str, value: Any) -> float:
    """`value`, which is a number and no tensor, as one."""
    if not isinstance(value, Real):
        raise TypeError(f"`{name}` must be a tensor or a number; got {kind(value)}.")
    return value  # pyright: ignore[reportReturnType]


def as_number(name: str, value: Any, *beside: Tensor) -> Tensor:
    """`value`, a number or a floating-point tensor, in the dtype that the tensors beside it have in common.

    These have been checked.
    """
    dtype = beside[0].dtype
    for tensor in beside[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    if isinstance(value, Tensor):
        check_floating(name, value)
        return value.to(dtype)
    return torch.full((), check_number(name, value), dtype=dtype, device=beside[0].device)


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
        found = value.dtype if isinstance(value, Tensor) else kind(value)
        raise TypeError(f"`{name}` must be a boolean tensor; got {found}.")
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


def same_shape(a: torch.Size, b: torch.Size) -> bool:
    """Whether two shapes are one. `a == b` compares sizes before lengths, and to an exporter a comparison of
    sizes that it does not know is a condition on them."""
    return len(a) == len(b) and a == b


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
