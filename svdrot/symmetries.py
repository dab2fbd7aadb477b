"""The finite groups of rotations, as matrices: the symmetries of objects.

Rotations S that take an object to itself, in its own frame: poses R and R S look alike. Every group has the
identity first.
"""

import itertools
import math

import torch
from torch import Tensor

from ._checks import check_floating, check_whole
from ._vectors import product
from .representations import axis_angle_to_matrix

Z_AXIS = (0.0, 0.0, 1.0)


def cyclic(order: int, axis: Tensor | tuple[float, float, float] = Z_AXIS) -> Tensor:
    """The turns by multiples of 2 pi / `order` about an axis: of a pyramid, or a propeller.

    Args:
        order: of the group, at least 1.
        axis: not zero, of any length, shape (3,).

    Returns:
        Rotations, shape (order, 3, 3), float64 unless `axis` is a tensor.

    Raises:
        ValueError: if `order` is no whole number or less than 1, or `axis` is not one nonzero vector.
    """
    order = check_whole("order", order)
    unit = _unit("axis", axis)
    angles = 2 * math.pi / order * torch.arange(order, dtype=torch.float64, device=unit.device)
    return _of(unit, angles[:, None] * unit.double())


def dihedral(
    order: int,
    axis: Tensor | tuple[float, float, float] = Z_AXIS,
    second: Tensor | tuple[float, float, float] | None = None,
) -> Tensor:
    """`cyclic`, and half turns about `order` axes across: of a prism, a nut, or a box (order 2).

    Args:
        order: of the turns about `axis`, at least 1.
        axis: not zero, shape (3,).
        second: one axis of the half turns, shape (3,); its part perpendicular to `axis` counts. Default: x,
            or z if `axis` is nearer to x than to the others.

    Returns:
        Rotations, shape (2 * order, 3, 3), float64 unless `axis` is a tensor.

    Raises:
        ValueError: as `cyclic`, or if `second` is parallel to `axis`.
    """
    turns = cyclic(order, axis)
    unit = _unit("axis", axis)
    if second is None:
        second = Z_AXIS if unit.abs().argmax() == 0 else (1.0, 0.0, 0.0)
    across = _unit("second", second).to(unit)
    across = across - (across * unit).sum() * unit
    if torch.linalg.vector_norm(across) < 16 * torch.finfo(unit.dtype).eps:
        raise ValueError(f"`second` must not be parallel to `axis`, {axis}; got {second}.")
    across = across / torch.linalg.vector_norm(across)
    flip = _of(unit, math.pi * across.double())
    return torch.cat((turns, product(turns, flip)))


def tetrahedral(*, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
    """The 12 rotations of a tetrahedron whose vertices are corners of a cube, shape (12, 3, 3)."""
    return torch.tensor(_signed(EVEN, 1), dtype=dtype, device=device)


def octahedral(*, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
    """The 24 rotations of a cube along the axes of coordinates, or an octahedron, shape (24, 3, 3)."""
    return torch.tensor(_signed(EVEN, 1) + _signed(ODD, -1), dtype=dtype, device=device)


EVEN, ODD = ((0, 1, 2), (1, 2, 0), (2, 0, 1)), ((0, 2, 1), (2, 1, 0), (1, 0, 2))


def _signed(orders: tuple[tuple[int, ...], ...], product: int) -> list[list[list[int]]]:
    """Permutation matrices with signs of that product."""
    signs = [signs for signs in itertools.product((1, -1), repeat=3) if math.prod(signs) == product]
    return [
        [[sign * (column == at) for column in range(3)] for at, sign in zip(order, each, strict=True)]
        for order in orders
        for each in signs
    ]


def icosahedral(*, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
    """The 60 rotations of an icosahedron with the vertices (0, ±1, ±g), g the golden ratio, and so on in
    cyclic order, or of its dodecahedron, shape (60, 3, 3).

    The 12 of its tetrahedron and the 5 about a vertex share the identity alone: the group is their product.
    """
    golden = (1 + math.sqrt(5)) / 2
    vertex = torch.tensor((0, 1, golden), dtype=torch.float64)
    every = product(tetrahedral()[:, None], cyclic(5, vertex))
    return every.flatten(0, 1).to(dtype).to(device)


def _unit(name: str, value: Tensor | tuple[float, float, float]) -> Tensor:
    if not isinstance(value, Tensor | tuple | list):
        raise TypeError(f"`{name}` must be a tensor or three numbers; got {type(value).__name__}.")
    v = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    check_floating(name, v)
    largest = v.abs().amax() if v.shape == (3,) else 0.0
    if not 0 < largest < math.inf:
        raise ValueError(f"`{name}` must be a finite nonzero vector of shape (3,); got {value}.")
    v = v / largest
    return v / torch.linalg.vector_norm(v)


def _of(unit: Tensor, vectors: Tensor) -> Tensor:
    """Rotations of float64 rotation vectors, in the dtype of `unit`."""
    return axis_angle_to_matrix(vectors).to(unit.dtype)
