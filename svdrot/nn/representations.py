"""What a head can regress: raw numbers, their map to rotations, and the raw numbers of a rotation."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor

from svdrot import representations
from svdrot.engine.maps import Map
from svdrot.engine.program import array_of
from svdrot.engine.words import where
from svdrot.representations import Row


class Representation(NamedTuple):
    """Describe what a head can regress: a row of `REPRESENTATIONS`.

    Attributes:
        features: raw numbers per rotation.
        to_matrix: function from raw numbers (..., features) to rotations (..., 3, 3), as a head reads them:
            numbers that are all 0 as those of the identity.
        from_matrix: function from rotations (..., 3, 3) to raw numbers (..., features): the standard ones of
            all that give the rotation.
        formula: the formula of `to_matrix`, for one element.

    Example:
        >>> import torch, svdrot
        >>> row = svdrot.nn.REPRESENTATIONS["6d"]
        >>> row.features
        6
        >>> row.from_matrix(torch.eye(3))
        tensor([1., 0., 0., 0., 1., 0.])
    """

    features: int
    to_matrix: Callable[[Tensor], Tensor]
    from_matrix: Callable[[Tensor], Tensor]
    formula: Map


def _written(name: str, row: Row) -> Representation:
    """Return a row of the table as a head, by its named functions."""
    assert row.to_matrix is not None
    there, back = (
        getattr(representations, f"{a}_to_{b}") for a, b in ((row.kind, "matrix"), ("matrix", row.kind))
    )
    if row.kind == "euler":
        sequence = name.removeprefix("euler_")
        there, back = partial(there, sequence=sequence), partial(back, sequence=sequence)
    if row.head in REGULAR_AT_ZERO:
        return Representation(math.prod(row.shape), there, back, row.to_matrix)
    read = _from_zero(row, row.to_matrix)
    return Representation(math.prod(row.shape), read, back, read)


REGULAR_AT_ZERO = ("axis_angle", "mrp", "euler")  # where the numbers of the identity are zeros


def _from_zero(row: Row, read: Map) -> Map:
    """Return a map with a gradient at 0, the value of a layer whose weight and bias are zero.

    Only the direction of these numbers counts, and that of 0, which is read as the identity, is undefined:
    its gradient is zero, and such a layer would never learn. For a head 0 is the numbers of the identity.
    """
    identity = np.eye(3) if row.hub == "matrix" else np.eye(4)[0]

    def read_from_zero(raw):
        zero = raw[0] == 0.0
        for x in raw[1:]:
            zero = zero & (x == 0.0)
        numbers = array_of(getattr(row.write, "formula", row.write)(identity), row.shape)
        return read(raw + [where(zero, x, 0.0) for x in numbers])

    name = f"{__name__}.{row.head} from zero"
    return Map(read_from_zero, {"raw": row.shape}, (3, 3), guarded=bool(read.guarded), name=name)


REPRESENTATIONS: dict[str, Representation] = {
    row.head: _written(name, row) for name, row in representations.TABLE.items() if row.head
}


def add_representation(name: str, read: Map, write: Map) -> None:
    """Add a representation of your own: as a head, in every loss and strategy, and as a name for conversions.

    Args:
        name: names the head, and the numbers in `svdrot.convert_rotation`; none that is taken.
        read: formula from the numbers, shape (n,), to the rotation (3, 3); see `svdrot.engine.formula`.
        write: formula from the rotation to the numbers: the standard ones of all that give it.

    Raises:
        ValueError: if the name is taken, or the shapes are not those.
        TypeError: if `read` or `write` is not a formula.

    Example:
        The vector of Gibbs, the axis times the tangent of half the angle:

        >>> import torch, svdrot
        >>> from svdrot.engine import formula
        >>> @formula({"gibbs": (3,)}, (3, 3))
        ... def gibbs_to_matrix(gibbs):
        ...     x, y, z = gibbs
        ...     s = 2 / (1 + x * x + y * y + z * z)
        ...     return (
        ...         (1 - s * (y * y + z * z), s * (x * y - z), s * (x * z + y)),
        ...         (s * (x * y + z), 1 - s * (x * x + z * z), s * (y * z - x)),
        ...         (s * (x * z - y), s * (y * z + x), 1 - s * (x * x + y * y)),
        ...     )
        >>> @formula({"matrix": (3, 3)}, (3,))
        ... def matrix_to_gibbs(m):
        ...     k = 1 + m[0, 0] + m[1, 1] + m[2, 2]
        ...     return (m[2, 1] - m[1, 2]) / k, (m[0, 2] - m[2, 0]) / k, (m[1, 0] - m[0, 1]) / k
        >>> svdrot.nn.add_representation("gibbs", gibbs_to_matrix, matrix_to_gibbs)
        >>> head = svdrot.nn.RotationHead(16, "gibbs")
        >>> svdrot.is_rotation(head(torch.randn(8, 16))).all()
        tensor(True)
        >>> del svdrot.nn.REPRESENTATIONS["gibbs"], svdrot.representations.TABLE["gibbs"]
    """
    if name in REPRESENTATIONS or name in representations.TABLE:
        raise ValueError(f"`name` must be new; {name!r} is a representation already.")
    for argument, given in (("read", read), ("write", write)):
        if not isinstance(given, Map):
            got = type(given).__name__
            raise TypeError(f"`{argument}` must be a formula, made by `svdrot.engine.formula`; got {got}.")
    numbers = read.shapes[0]
    if len(numbers) != 1 or (*read.shapes, *read.results) != (numbers, (3, 3)) or read.scalars:
        raise ValueError(
            f"`read` must be a formula from (n,) to (3, 3); got {read.shapes} to {read.results}."
        )
    if (*write.shapes, *write.results) != ((3, 3), numbers) or write.scalars:
        raise ValueError(
            f"`write` must be a formula from (3, 3) to {numbers}; got {write.shapes} to {write.results}."
        )
    representations.TABLE[name] = Row(
        numbers, "matrix", read, write, read, name, f"numbers (..., {numbers[0]})", name
    )
    there, back = (
        partial(representations.convert_rotation, source=a, target=b)
        for a, b in ((name, "matrix"), ("matrix", name))
    )
    REPRESENTATIONS[name] = Representation(numbers[0], there, back, read)
