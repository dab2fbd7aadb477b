"""Davenport's angles: three turns about any three axes, of which neighbors are perpendicular."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from svdrot._checks import check_choice, check_shape
from svdrot._formulas.geometry import davenport
from svdrot._precision import compute_dtype, result_dtype
from svdrot._stand_ins import takes_arrays
from svdrot.engine.maps import Map

ROUNDING = 16  # eps of the dtype of the axes: what rounding and normalizing leaves between perpendicular ones

Order = Literal["intrinsic", "extrinsic"]
Axes = Tensor | Sequence[Sequence[float]]


@takes_arrays
def davenport_to_matrix(angles: Tensor, axes: Axes, order: Order = "intrinsic") -> Tensor:
    r"""Convert Davenport's angles to the product of three rotations about given axes.

    They are Euler angles about axes that need not be those of coordinates: $R_1(\alpha) R_2(\beta)
    R_3(\gamma)$ if intrinsic, each turn about an axis of the turned body, and $R_3(\gamma) R_2(\beta)
    R_1(\alpha)$ if extrinsic, each about a fixed axis.

    Args:
        angles: (alpha, beta, gamma) in radians, shape (..., 3).
        axes: the three axes as rows, of any nonzero length, shape (..., 3, 3); a tensor or nested sequences.
            The second must be perpendicular to both others. Batch dimensions broadcast.
        order: "intrinsic" or "extrinsic".

    Returns:
        Rotations, shape (..., 3, 3), smooth everywhere. NaN where an axis is zero or neighbors are not
        perpendicular to 16 eps of the dtype of `axes`.

    Raises:
        ValueError: if the last dimensions are not 3 and (3, 3), the others do not broadcast, or `order` is
            neither.
        TypeError: if a tensor is not floating point.

    Source:
        Shuster and Markley, "Generalization of the Euler Angles", J. Astronautical Sciences 51 (2003).

    Example:
        >>> import torch, svdrot
        >>> angles = torch.tensor([0.1, 0.2, 0.3])
        >>> axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        >>> expected = svdrot.euler_to_matrix(angles, "XYZ")
        >>> torch.allclose(svdrot.davenport_to_matrix(angles, axes), expected, atol=1e-6)
        True
    """
    check_shape("angles", angles, 3)
    check_choice("order", order, davenport.ORDERS)
    return _computed(davenport.TO_MATRIX[order], angles, axes)


@takes_arrays
def matrix_to_davenport(matrix: Tensor, axes: Axes, order: Order = "intrinsic") -> Tensor:
    r"""Convert rotations to the angles whose `davenport_to_matrix` they are.

    Args:
        matrix: rotations, shape (..., 3, 3). Nothing checks that; `svdrot.is_rotation` does.
        axes: the three axes as rows, of any nonzero length, shape (..., 3, 3); a tensor or nested sequences.
            The second must be perpendicular to both others. Batch dimensions broadcast.
        order: "intrinsic" or "extrinsic".

    Returns:
        Angles in radians, shape (..., 3). The outer two are in [-pi, pi]. With the angle $\lambda$ between
        the first and the third axis, the middle one is in $[-\lambda, \pi - \lambda]$ where the second axis
        is on the side of (first x third), else in $[\lambda - \pi, \lambda]$; for extrinsic angles it is the
        other way around, as in scipy. Both have 0. At an end of that range only a sum or difference of the
        outer two is defined: the third is zero, and only the first has a gradient. NaN where an axis is zero
        or neighbors are not perpendicular to 16 eps of the dtype of `axes`.

    Raises:
        ValueError: if the last dimensions are not (3, 3), the others do not broadcast, or `order` is neither.
        TypeError: if a tensor is not floating point.

    Source:
        Shuster and Markley, "Generalization of the Euler Angles", J. Astronautical Sciences 51 (2003).

    Example:
        >>> import torch, svdrot
        >>> axes = [[1.0, 1.0, 0.0], [0.0, 0.0, 2.0], [1.0, -1.0, 0.0]]
        >>> matrix = svdrot.davenport_to_matrix(torch.tensor([0.1, 0.2, 0.3]), axes)
        >>> svdrot.matrix_to_davenport(matrix, axes)
        tensor([0.1000, 0.2000, 0.3000])
    """
    check_shape("matrix", matrix, 3, 3)
    check_choice("order", order, davenport.ORDERS)
    return _computed(davenport.FROM_MATRIX[order], matrix, axes)


def _computed(function: Map, value: Tensor, axes: Axes) -> Tensor:
    """Return a map of numbers and axes. Axes that come as numbers are not rounded to half precision."""
    if isinstance(axes, Tensor):
        check_shape("axes", axes, 3, 3)
        return function(value, axes, scalars=(ROUNDING * torch.finfo(axes.dtype).eps,))
    try:
        exact = torch.tensor(axes, dtype=compute_dtype(value), device=value.device)
    except (TypeError, ValueError) as error:
        kind = type(axes).__name__
        raise TypeError(
            f"`axes` must be a tensor or three sequences of three numbers; got {kind}."
        ) from error
    check_shape("axes", exact, 3, 3)
    return function(value, exact, scalars=(ROUNDING * torch.finfo(exact.dtype).eps,)).to(result_dtype(value))
