r"""What may stand between two sets of rotations: an inverse, and changes of axes on either side.

$B = P A^{\pm 1} Q$ with signed permutations P and Q. Negating both changes nothing, so that P and Q are taken
from the 24 of determinant 1: to rotations a mirrored axis is half a turn about it.
"""

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import torch
from torch import Tensor

from svdrot.conventions.frames import AXES, change_of_axes
from svdrot.symmetries import octahedral


@dataclass(frozen=True)
class Relation:
    """Hold B = P A Q, or with the inverse of A.

    Attributes:
        inverse: whether A is inverted.
        left: P, as nested tuples of whole numbers.
        right: Q.
    """

    inverse: bool
    left: tuple[tuple[int, ...], ...]
    right: tuple[tuple[int, ...], ...]

    @property
    def cost(self) -> int:
        """Return how far-fetched it is, to choose among relations that say the same."""
        p, q = _cost(self.left), _cost(self.right)
        both = self.left != _ONE and self.right != _ONE
        same = self.right == _transposed(self.left)
        return self.inverse + (2 + p if both and same else 4 + p + q if both else p + q and 2 + p + q)

    def of(self, matrix: Tensor) -> Tensor:
        """Return B of A."""
        a = matrix.mT if self.inverse else matrix
        p, q = (torch.tensor(side, dtype=a.dtype) for side in (self.left, self.right))
        return p @ a @ q

    def code(self, expression: str) -> str:
        """Return the code of B, of an expression for A."""
        a = f"{expression}.mT" if self.inverse else expression
        p, q = (f"a.new_tensor({[list(row) for row in side]})" for side in (self.left, self.right))
        left = "" if self.left == _ONE else f"{p} @ "
        right = "" if self.right == _ONE else f" @ {q}"
        return f"({left}{a}{right})" if left or right else a

    def words(self) -> list[str]:
        """Return what it is, in parts."""
        parts = ["transposed: active against passive, or from and to exchanged"] if self.inverse else []
        back = _transposed(self.right)
        if self.left == _ONE == self.right:
            return parts
        if self.left == back:
            return [*parts, f"axes changed on both sides, {_axes(self.left)}{_mirror(self.left)}"]
        if self.left != _ONE:
            parts.append(f"axes changed on the left, of the frame that rotations lead to, {_axes(self.left)}")
        if self.right != _ONE:
            parts.append(f"axes changed on the right, of the frame that they start from, {_axes(back)}")
        return parts


_ONE = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


def _transposed(rows: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(zip(*rows, strict=True))


def _cost(rows: tuple[tuple[int, ...], ...]) -> int:
    """Return 0 for no change, 1 for flips, 2 for axes that are exchanged."""
    moved = any(rows[k][k] == 0 for k in range(3))
    return 0 if rows == _ONE else 2 if moved else 1


def _axes(rows: tuple[tuple[int, ...], ...]) -> str:
    """Return which axes the new ones are, and between which frames that is known."""
    known = [
        f", as from {source} to {target}"
        for source, target in permutations(AXES, 2)
        if change_of_axes(source, target).int().tolist() == [list(row) for row in rows]
    ]
    return f"{_arrow(rows)}{known[0] if known else ''}"


def _arrow(rows: tuple[tuple[int, ...], ...]) -> str:
    names = [("-" if row[at] < 0 else "") + "xyz"[at] for row in rows for at in range(3) if row[at]]
    return f"(x, y, z) -> ({', '.join(names)})"


def _mirror(rows: tuple[tuple[int, ...], ...]) -> str:
    mirrored = tuple(tuple(-entry for entry in row) for row in rows)
    return f", or {_arrow(mirrored)}, left-handed against right-handed: rotations alone cannot tell"


@cache
def relations(few: bool) -> tuple[list[Relation], Tensor]:
    """Return relations without the inverse, and the coefficients (R, 81) of tr(B^T P A Q) in A_ij B_kl.

    Args:
        few: whether the axes of at most one side are changed, or both alike.
    """
    group = octahedral()
    rows = [tuple(tuple(int(x) for x in row) for row in element) for element in group.tolist()]
    pairs = [
        (p, q)
        for p in range(len(rows))
        for q in range(len(rows))
        if not few or rows[p] == _ONE or rows[q] == _ONE or rows[q] == _transposed(rows[p])
    ]
    left, right = group[[p for p, _ in pairs]], group[[q for _, q in pairs]]
    # (P A Q)_kl = P_ki A_ij Q_jl, and its product with B_kl.
    coefficients = left.mT[:, :, None, :, None] * right[:, None, :, None, :]
    return [Relation(False, rows[p], rows[q]) for p, q in pairs], coefficients.reshape(len(pairs), 81)
