"""What a value of each distribution must be."""

import torch
from torch import Tensor
from torch.distributions import constraints

from svdrot._checks import check_floating
from svdrot.rotations import is_rotation


def _tolerance(value: Tensor) -> float:
    check_floating("value", value)
    return max(torch.finfo(value.dtype).eps, torch.finfo(torch.float32).eps) ** 0.5


class _Rotation(constraints.Constraint):
    """Up to the square root of rounding in float32 or coarser: a density is asked for products of many
    rotations, and for rotations that were float32 before they were float64."""

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return is_rotation(value, tolerance=_tolerance(value))


class _UnitQuaternion(constraints.Constraint):
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return ((value * value).sum(-1) - 1).abs() <= _tolerance(value)


class _Matrix(constraints.Constraint):
    """Finite entries: as `independent(real, 2)`, which takes infinity and no empty batches."""

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return value.isfinite().all(-1).all(-1)


matrix = _Matrix()
rotation = _Rotation()
unit_quaternion = _UnitQuaternion()
