"""The formulas bound to torch: any device, differentiable, exportable; the specification of the others."""

from typing import Any

import torch
from torch import Tensor

from . import so3


def special_orthogonalize(m: Tensor) -> Tensor:
    return _matrix(_FORMULAS[m.dtype]["nearest_rotation"](*_columns(m)))


def special_orthogonalize_differential(m: Tensor, r: Tensor, t: Tensor, damping: float) -> Tensor:
    differential = _FORMULAS[m.dtype]["nearest_rotation_differential"]
    return _matrix(differential(*_columns(m), *_columns(r), *_columns(t), damping))


def projection_gap(m: Tensor) -> tuple[Tensor, Tensor]:
    gap, *columns = _FORMULAS[m.dtype]["gap_and_derivative"](*_columns(m))
    return gap, _matrix(columns)


def _bound(dtype: torch.dtype) -> dict[str, Any]:
    vocabulary = {
        "sqrt": torch.sqrt,
        "absolute": torch.abs,
        # Between two constants torch.where answers in the default dtype.
        "where": lambda condition, x, y: torch.where(condition, x, y).to(dtype),
        **so3.constants(dtype),
    }
    so3.bind(vocabulary, lambda formula: formula)
    return vocabulary


def _columns(m: Tensor) -> list[tuple[Tensor, ...]]:
    return [column.unbind(-1) for column in m.unbind(-1)]


def _matrix(columns) -> Tensor:
    return torch.stack([torch.stack(column, -1) for column in columns], -1)


_FORMULAS = {dtype: _bound(dtype) for dtype in (torch.float32, torch.float64)}
