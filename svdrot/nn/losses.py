"""A head's map and a loss of the rotation as one function of the raw numbers."""

from itertools import product
from typing import Any

from torch import Tensor, nn

from svdrot._checks import check_choice, check_positive
from svdrot._formulas import losses, turns
from svdrot._stand_ins import inner, is_inner
from svdrot.engine.maps import Map

from .representations import REPRESENTATIONS

LOSSES: dict[str, Map] = {
    "geodesic": turns.geodesic_distance,
    "squared_geodesic": turns.squared_geodesic_distance,
    "chordal": turns.chordal_distance,
    "squared_chordal": turns.squared_chordal_distance,
    "huber_geodesic": losses.huber_geodesic,
    "huber_chordal": losses.huber_chordal,
}
REDUCTIONS = ("mean", "sum", "none")
COMPOSED: dict[tuple[str, str], Map] = {}  # by representation and loss
READ: dict[tuple[str, str], Map] = {}  # the maps that these begin with: those of a user may be replaced


class RotationLoss(nn.Module):
    r"""Loss between the rotation of raw numbers and the true one: map, loss and mean in one pass over memory.

    The same as the map of the representation, then the loss of `svdrot.losses`, then the mean, with the same
    gradients. On a CPU one kernel gives the value and the gradient together, many times as fast as the steps
    one after the other; a network that trains by it ends in a linear layer and needs its rotations only when
    it is used: `RotationHead.linear`.

    Args:
        representation: of the raw numbers, one of `RotationHead`: "svd", "6d", "quaternion", "axis_angle",
            "euler", "10d", "5d", "2vec" or "mrp".
        loss: "geodesic" (radians), "squared_geodesic", "chordal", "squared_chordal", "huber_geodesic" or
            "huber_chordal", as the functions of `svdrot.losses`.
        reduction: "mean", "sum" or "none", over all elements, the first two in float32 or better.
        threshold: of the two Huber losses, which need it; radians, or a Frobenius norm.

    Shape:
        raw (..., features) and rotations (..., 3, 3), whose batch dimensions broadcast, -> (), or (...) for
        "none". The mean of no elements is NaN.

    Raises:
        ValueError: if a name is none of those, or `threshold` is missing, not positive, or for another loss.

    Example:
        >>> import torch, svdrot
        >>> loss = svdrot.nn.RotationLoss("svd", "geodesic")
        >>> network, features = torch.nn.Linear(16, 9), torch.randn(8, 16)
        >>> loss(network(features), svdrot.random_rotation(8)).backward()
        >>> loss(2 * torch.eye(3).flatten(), torch.eye(3))
        tensor(0.)
    """

    def __init__(
        self,
        representation: str = "svd",
        loss: str = "geodesic",
        reduction: str = "mean",
        *,
        threshold: float | None = None,
    ):
        super().__init__()
        check_choice("representation", representation, REPRESENTATIONS)
        check_choice("loss", loss, LOSSES)
        check_choice("reduction", reduction, REDUCTIONS)
        if loss.startswith("huber") == (threshold is None):
            wanted = "needs" if threshold is None else "has no"
            raise ValueError(f"`loss` {loss!r} {wanted} `threshold`; got {threshold}.")
        if threshold is not None:
            check_positive("threshold", threshold)
        self.representation: str = representation
        self.loss: str = loss
        self.reduction: str = reduction
        self.threshold: float | None = threshold
        _composed(representation, loss)

    def forward(self, raw: Tensor, truth: Tensor) -> Tensor:
        """Return the loss of raw numbers against true rotations.

        Args:
            raw: shape (..., features), the numbers of the representation.
            truth: rotations, shape (..., 3, 3); batch dimensions broadcast.

        Returns:
            Shape (), or (...) for "none".

        Raises:
            ValueError: if a shape is wrong.
            TypeError: if an argument is not floating point.
        """
        if is_inner(self, raw):
            return inner(self, raw, truth)
        whole = COMPOSED.get((self.representation, self.loss)) or _composed(self.representation, self.loss)
        scalars = () if self.threshold is None else (self.threshold,)
        if self.reduction == "none":
            return whole(raw, truth, scalars=scalars)
        return (whole.mean if self.reduction == "mean" else whole.sum)(raw, truth, scalars=scalars)

    def extra_repr(self) -> str:
        """Return the representation, the loss and the reduction, as `print` shows them."""
        threshold = "" if self.threshold is None else f", threshold={self.threshold}"
        return f"{self.representation!r}, {self.loss!r}, reduction={self.reduction!r}{threshold}"


def _composed(representation: str, loss: str) -> Map:
    """Return the map of a representation and a loss, which is made once."""
    read, distance = REPRESENTATIONS[representation].formula, LOSSES[loss]
    if READ.get((representation, loss)) is read:
        return COMPOSED[representation, loss]

    def whole(raw: Any, truth: Any, *scalars: Any) -> Any:
        return distance(read(raw), truth, *scalars)

    inputs = {"raw": read.shapes[0], "truth": (3, 3)}
    name = f"{__name__}.{representation} {loss}"
    READ[representation, loss] = read
    COMPOSED[representation, loss] = Map(whole, inputs, (), scalars=distance.scalars, name=name)
    return COMPOSED[representation, loss]


for _names in product(REPRESENTATIONS, LOSSES):
    _composed(*_names)
