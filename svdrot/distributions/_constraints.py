"""What a value of each distribution must be."""

import torch
from torch import Tensor
from torch.distributions import constraints

from svdrot._checks import check_floating
from svdrot.rotations import is_rotation


def _tolerance(value: Tensor) -> float:
    """Return the square root of rounding in the dtype of `value`, or in float32 if that is coarser."""
    check_floating("value", value)
    return max(torch.finfo(value.dtype).eps, torch.finfo(torch.float32).eps) ** 0.5


class _Rotation(constraints.Constraint):
    """Hold for rotations up to the square root of rounding, in float32 or coarser.

    A density is asked for products of many rotations, and for rotations that were float32 before they were
    float64.
    """

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return is_rotation(value, tolerance=_tolerance(value))


class _UnitQuaternion(constraints.Constraint):
    """Hold for vectors of unit length, up to the same tolerance."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return ((value * value).sum(-1) - 1).abs() <= _tolerance(value)


class _Matrix(constraints.Constraint):
    """Hold for matrices of finite entries.

    `independent(real, 2)` would take infinity and no empty batches.
    """

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return value.isfinite().all(-1).all(-1)


matrix = _Matrix()
rotation = _Rotation()
unit_quaternion = _UnitQuaternion()
