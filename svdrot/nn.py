"""Layers: a linear head for each representation, and the projection as a module."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from .projection import special_orthogonalize
from .representations import (
    axis_angle_to_matrix,
    euler_to_matrix,
    mrp_to_matrix,
    quaternion_to_matrix,
    rotation_2vec_to_matrix,
    rotation_5d_to_matrix,
    rotation_6d_to_matrix,
    rotation_9d_to_matrix,
    symmetric_10d_to_matrix,
)


class Representation(NamedTuple):
    features: int  # raw numbers per rotation
    to_matrix: Callable[[Tensor], Tensor]  # (..., features) -> (..., 3, 3)


REPRESENTATIONS: dict[str, Representation] = {
    "svd": Representation(9, rotation_9d_to_matrix),
    "6d": Representation(6, rotation_6d_to_matrix),
    "quaternion": Representation(4, quaternion_to_matrix),
    "axis_angle": Representation(3, axis_angle_to_matrix),
    "euler": Representation(3, partial(euler_to_matrix, sequence="XYZ")),
    "10d": Representation(10, symmetric_10d_to_matrix),
    "5d": Representation(5, rotation_5d_to_matrix),
    "2vec": Representation(6, rotation_2vec_to_matrix),
    "mrp": Representation(3, mrp_to_matrix),
}


class RotationHead(nn.Module):
    """Rotation regressed from features: a linear layer to the raw numbers of a representation, then its map.

    Args:
        in_features: size of the last dimension of the input.
        representation: "svd" (a 3x3 matrix and its nearest rotation), "6d", "quaternion", "axis_angle",
            "euler" (intrinsic XYZ), "10d", "5d", "2vec" or "mrp"; a key of `REPRESENTATIONS`.

    Shape:
        (..., in_features) -> (..., 3, 3), rotations. The map runs in float32 or better whatever the linear
        layer runs in; under autocast the result is float32.

    Raises:
        ValueError: if `representation` is not a key of `REPRESENTATIONS`.

    Source:
        Levinson et al., "An Analysis of SVD for Deep Rotation Estimation", NeurIPS 2020 ("svd"); for the
        others the function of `svdrot.representations`.
    """

    # The linear layer keeps torch's initial values. "svd", "6d", "2vec", "quaternion" and "10d" are singular
    # at zero but see only the direction of the raw vector, which random weights and a random bias make
    # generic at any size; "axis_angle", "mrp" and "euler" start near the identity, where they are regular.
    def __init__(self, in_features: int, representation: str):
        super().__init__()
        if representation not in REPRESENTATIONS:
            names = ", ".join(map(repr, REPRESENTATIONS))
            raise ValueError(f"`representation` must be one of {names}; got {representation!r}.")
        self.representation = representation
        self.linear = nn.Linear(in_features, REPRESENTATIONS[representation].features)

    def forward(self, features: Tensor) -> Tensor:
        return REPRESENTATIONS[self.representation].to_matrix(self.linear(features))

    def extra_repr(self) -> str:
        return f"representation={self.representation!r}"


class SpecialOrthogonalize(nn.Module):
    """`svdrot.special_orthogonalize` as a layer: (..., n, n) -> the nearest rotations (..., n, n)."""

    def __init__(self, damping: float | None = None):
        super().__init__()
        self.damping = damping

    def forward(self, matrix: Tensor) -> Tensor:
        return special_orthogonalize(matrix, damping=self.damping)

    def extra_repr(self) -> str:
        return "" if self.damping is None else f"damping={self.damping}"
