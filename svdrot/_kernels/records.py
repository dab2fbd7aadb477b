"""Rows of numbers with names, for the loop that writes them and whoever reads them.

Loops address a field by its place, which their vocabulary names (`Record.words`); Python splits rows into
fields (`Record.read`). So a field that is added or moved is so everywhere.
"""

from math import prod

from torch import Tensor


class Record:
    """Fields of a row, one after the other.

    Args:
        fields: the shape of each, by name, in the order of the row; () is one number.
    """

    def __init__(self, **fields: tuple[int, ...]):
        self.shapes = fields
        self.places: dict[str, int] = {}
        self.size = 0
        for name, shape in fields.items():
            self.places[name] = self.size
            self.size += prod(shape)

    def read(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the fields of rows (B, size), each of shape (B, ...), without a copy."""
        parts = rows.split([prod(shape) for shape in self.shapes.values()], 1)
        return {
            name: part.unflatten(1, shape) if shape else part[:, 0]
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def words(self, prefix: str = "") -> dict[str, int]:
        """Return the places as constants for a loop: `PREFIX_FIELD`."""
        return {f"{prefix}{name}".upper(): place for name, place in self.places.items()}


# Of pairs (x, y) of weight w: total weight, centroids about the pivots, covariance by columns, mean square of
# the source about its centroid.
MOMENTS = Record(weight=(), source=(3,), target=(3,), covariance=(3, 3), spread=())

# Of the pairs of ICP: moments of (1, p, q) and normal equations, as 7 x 7 matrices; points with a neighbor,
# the squares of their distances, and pairs that count.
SUMS = Record(moments=(7, 7), equations=(7, 7), found=(), squares=(), used=())

# Of the last step of a pose: pairs that count, the mean square of their heights, where they are, their root
# mean square distance from there, and the normal equations of (radius times rotation vector about there,
# translation).
ALIGNED = Record(count=(), square=(), center=(3,), radius=(), matrix=(6, 6))

# Of a step of ICP: the pose after it, H, where it turns and the unit of length, what was counted, the chord
# of its angle, the way of the pivot, and whether it is finite.
STEP = Record(
    rotation=(3, 3),
    translation=(3,),
    matrix=(6, 6),
    pivot=(3,),
    radius=(),
    found=(),
    squares=(),
    used=(),
    chord=(),
    length=(),
    finite=(),
)
