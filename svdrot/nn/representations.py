"""What a head can regress: raw numbers, their map to rotations, and the raw numbers of a rotation."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from svdrot import representations
from svdrot.engine.maps import Map


class Representation(NamedTuple):
    """What a head can regress.

    Args:
        features: raw numbers per rotation.
        to_matrix: (..., features) -> rotations (..., 3, 3).
        from_matrix: (..., 3, 3) -> (..., features), of all raw numbers of a rotation the standard ones.
        formula: of `to_matrix`.
    """

    features: int
    to_matrix: Callable[[Tensor], Tensor]
    from_matrix: Callable[[Tensor], Tensor]
    formula: Map


def _heads() -> dict[str, Representation]:
    """Those of the table of representations that are heads, by their names as such."""
    found = {}
    for name, row in representations.TABLE.items():
        if row.head is None or row.to_matrix is None:
            continue
        there, back = (
            getattr(representations, f"{a}_to_{b}") for a, b in ((row.kind, "matrix"), ("matrix", row.kind))
        )
        if row.kind == "euler":
            sequence = name.removeprefix("euler_")
            there, back = partial(there, sequence=sequence), partial(back, sequence=sequence)
        found[row.head] = Representation(math.prod(row.shape), there, back, row.to_matrix)
    return found


REPRESENTATIONS: dict[str, Representation] = _heads()
