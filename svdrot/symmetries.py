"""The finite groups of rotations, as matrices: the symmetries of objects.

Rotations S that take an object to itself, in its own frame: poses R and R S look alike. Every group has the
identity first.
"""

import itertools
import math

import torch
from torch import Tensor

from ._checks import check_floating, check_whole
from ._stand_ins import takes_arrays
from ._vectors import product
from .representations import axis_angle_to_matrix

Z_AXIS = (0.0, 0.0, 1.0)


@takes_arrays
def cyclic(order: int, axis: Tensor | tuple[float, float, float] = Z_AXIS) -> Tensor:
    """Return the turns by multiples of 2 pi / `order` about an axis.

    They are the symmetries of a pyramid, or a propeller.

    Args:
        order: number of turns, at least 1.
        axis: of the turns, in the frame of the object; any vector but zero, shape (3,).

    Returns:
        Rotations, shape (order, 3, 3), float64 unless `axis` is a tensor.

    Raises:
        ValueError: if `order` is no whole number or less than 1, or `axis` is not one finite nonzero vector.
        TypeError: if `axis` is neither a floating-point tensor nor three numbers.

    Example:
        >>> import torch, svdrot
        >>> group = svdrot.symmetries.cyclic(4)
        >>> group.shape
        torch.Size([4, 3, 3])
        >>> (group[1] @ torch.tensor([1.0, 0.0, 0.0], dtype=group.dtype)).round().abs()
        tensor([0., 1., 0.], dtype=torch.float64)
    """
    order = check_whole("order", order)
    unit = _unit("axis", axis)
    angles = 2 * math.pi / order * torch.arange(order, dtype=torch.float64, device=unit.device)
    return _of(unit, angles[:, None] * unit.double())


@takes_arrays
def dihedral(
    order: int,
    axis: Tensor | tuple[float, float, float] = Z_AXIS,
    second: Tensor | tuple[float, float, float] | None = None,
) -> Tensor:
    """Return `cyclic` and the half turns about `order` axes across.

    They are the symmetries of a prism, a nut, or a box (order 2).

    Args:
        order: number of turns about `axis`, at least 1.
        axis: in the frame of the object; any vector but zero, shape (3,).
        second: one axis of the half turns, shape (3,); its part perpendicular to `axis` counts. Default: x,
            or z if `axis` is nearer to x than to the others.

    Returns:
        Rotations, shape (2 * order, 3, 3), float64 unless `axis` is a tensor.

    Raises:
        ValueError: if `order` is no whole number or less than 1, `axis` or `second` is not one finite nonzero
            vector, or the two are parallel.
        TypeError: if `axis` or `second` is neither a floating-point tensor nor three numbers.

    Example:
        >>> import torch, svdrot
        >>> box = svdrot.symmetries.dihedral(2).float()
        >>> estimate, truth = torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # half a turn about x
        >>> svdrot.losses.minimum_over_symmetries(estimate, truth, box) < 1e-3
        tensor(True)
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
    """Return the 12 rotations of a tetrahedron whose vertices are corners of a cube along the axes.

    Args:
        dtype: of the result, floating point.
        device: of the result; torch's default device if None.

    Returns:
        Rotations, shape (12, 3, 3), exact: their entries are 0, 1 and -1.

    Example:
        >>> import torch, svdrot
        >>> group = svdrot.symmetries.tetrahedral(dtype=torch.float32)
        >>> svdrot.is_rotation(group).all(), len(group)
        (tensor(True), 12)
    """
    return torch.tensor(_signed(EVEN, 1), dtype=dtype, device=device)


def octahedral(*, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
    """Return the 24 rotations of a cube along the axes of coordinates, or of an octahedron.

    Args:
        dtype: of the result, floating point.
        device: of the result; torch's default device if None.

    Returns:
        Rotations, shape (24, 3, 3), exact: their entries are 0, 1 and -1.

    Example:
        >>> import torch, svdrot
        >>> cube = svdrot.symmetries.octahedral(dtype=torch.float32)
        >>> quarter = svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, torch.pi / 2]))
        >>> svdrot.losses.minimum_over_symmetries(quarter, torch.eye(3), cube) < 1e-3
        tensor(True)
    """
    return torch.tensor(_signed(EVEN, 1) + _signed(ODD, -1), dtype=dtype, device=device)


EVEN, ODD = ((0, 1, 2), (1, 2, 0), (2, 0, 1)), ((0, 2, 1), (2, 1, 0), (1, 0, 2))


def _signed(orders: tuple[tuple[int, ...], ...], product: int) -> list[list[list[int]]]:
    """Return the permutation matrices of `orders` with signs of product `product`, as nested lists."""
    signs = [signs for signs in itertools.product((1, -1), repeat=3) if math.prod(signs) == product]
    return [
        [[sign * (column == at) for column in range(3)] for at, sign in zip(order, each, strict=True)]
        for order in orders
        for each in signs
    ]


def icosahedral(*, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None) -> Tensor:
    """Return the 60 rotations of an icosahedron, or of its dodecahedron.

    The vertices of the icosahedron are (0, ±1, ±g), g the golden ratio, and so on in cyclic order. The 12
    rotations of its tetrahedron and the 5 about a vertex share the identity alone: the group is their
        product.

    Args:
        dtype: of the result, floating point.
        device: of the result; torch's default device if None.

    Returns:
        Rotations, shape (60, 3, 3), exact to a few units of float64 rounding.

    Example:
        >>> import torch, svdrot
        >>> group = svdrot.symmetries.icosahedral()
        >>> svdrot.is_rotation(group).all(), len(group)
        (tensor(True), 60)
    """
    golden = (1 + math.sqrt(5)) / 2
    vertex = torch.tensor((0, 1, golden), dtype=torch.float64)
    every = product(tetrahedral()[:, None], cyclic(5, vertex))
    return every.flatten(0, 1).to(dtype).to(device)


def _unit(name: str, value: Tensor | tuple[float, float, float]) -> Tensor:
    """Return a checked vector over its length; float64 unless `value` is a tensor."""
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
    """Return rotations from float64 rotation vectors, in the dtype of `unit`."""
    return axis_angle_to_matrix(vectors).to(unit.dtype)
