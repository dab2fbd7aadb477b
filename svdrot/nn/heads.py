"""Heads: the last layer of a network that regresses rotations, or rigid motions."""

import torch
from torch import Tensor, nn

from svdrot._checks import check_shape
from svdrot._precision import is_autocast, no_autocast
from svdrot._stand_ins import inner, is_inner, is_symbol, leaf

from .representations import REPRESENTATIONS
from .strategies import STRATEGIES, Strategy

# With features of unit variance raw numbers then lie within 0.006 of those of the identity (one standard
# deviation), in the raw units of each representation: rotations within a degree or two.
NEAR = 0.01


class RotationHead(nn.Module):
    """Regress rotations from features: a linear layer to raw numbers of a representation, then its map.

    Args:
        in_features: size of the last dimension of the input.
        representation: "svd" (a 3x3 matrix and its nearest rotation), "6d", "quaternion", "axis_angle",
            "euler" (intrinsic XYZ), "10d", "5d", "2vec" or "mrp"; a key of `REPRESENTATIONS`.
        strategy: what training sees. "always": rotations. "inference" ("svd" only): the raw matrix, until
            `eval()`. `AfterWarmup(steps)` ("svd" only): the raw matrix for some steps. "manifold_gradient"
            ("svd", "6d", "quaternion", "10d"): rotations, with the gradient of Chen et al. A key of
            `STRATEGIES` or a `Strategy`.
        near_identity: start with rotations near the identity, with its raw numbers as the bias and weights a
            hundredth of torch's. (A layer set to zero learns, too: raw numbers that are all 0 are read as
            those of the identity.)

    Shape:
        (..., in_features) -> (..., 3, 3), rotations unless the strategy says otherwise. Layer and map run in
        float32 or better under autocast, and the result is float32; otherwise in the precision of the
        parameters, the map in float32 or better.

    Raises:
        ValueError: if `representation` or `strategy` is not one of those, or they do not fit.

    Source:
        Levinson et al., "An Analysis of SVD for Deep Rotation Estimation", NeurIPS 2020 ("svd"); for the
        others the function of `svdrot.representations`.

    Example:
        >>> import torch, svdrot
        >>> head = svdrot.nn.RotationHead(16, "svd")
        >>> rotation = head(torch.randn(8, 16))
        >>> svdrot.is_rotation(rotation).all()
        tensor(True)
        >>> svdrot.losses.geodesic(rotation, svdrot.random_rotation(8)).mean().backward()
    """

    # The linear layer keeps torch's initial values. "svd", "6d", "2vec", "quaternion" and "10d" are singular
    # at zero but see only the direction of the raw vector, which random weights and a random bias make
    # generic at any size; "axis_angle", "mrp" and "euler" start near the identity, where they are regular.
    # Weights and biases that are all zero give the identity, with the gradient there: see `representations`.
    def __init__(
        self,
        in_features: int,
        representation: str,
        strategy: str | Strategy = "always",
        *,
        near_identity: bool = False,
    ):
        super().__init__()
        if representation not in REPRESENTATIONS:
            names = ", ".join(map(repr, REPRESENTATIONS))
            raise ValueError(f"`representation` must be one of {names}; got {representation!r}.")
        self.representation: str = representation
        self.linear: nn.Linear = nn.Linear(in_features, REPRESENTATIONS[representation].features)
        self.strategy: Strategy = _strategy(strategy, representation)
        if near_identity:
            eye = torch.eye(3, dtype=self.linear.bias.dtype, device=self.linear.bias.device)
            _shrink(self.linear, REPRESENTATIONS[representation].from_matrix(eye))

    def forward(self, features: Tensor) -> Tensor:
        """Return a rotation for each vector of features.

        Args:
            features: shape (..., in_features), floating point.

        Returns:
            Rotations, shape (..., 3, 3), or in training what the strategy gives in their place.

        Raises:
            ValueError: if the last dimension is not `in_features`.
            TypeError: if `features` is not floating point.
        """
        if is_symbol(features):
            if is_inner(self, features):
                return inner(self, features)
            return inner(self.strategy, precise(self.linear, features), self.representation)
        check_shape("features", features, self.linear.in_features)
        return self.strategy(precise(self.linear, features), self.representation)

    def extra_repr(self) -> str:
        """Return the representation, as `print` shows it."""
        return f"representation={self.representation!r}"


def _strategy(strategy: str | Strategy, representation: str) -> Strategy:
    """Return a strategy by its name or as it is, checked against the representation."""
    if isinstance(strategy, str) and strategy in STRATEGIES:
        strategy = STRATEGIES[strategy]()
    if not isinstance(strategy, Strategy):
        names = ", ".join(map(repr, STRATEGIES))
        raise ValueError(f"`strategy` must be one of {names} or a `Strategy`; got {strategy!r}.")
    if representation not in strategy.representations:
        names = ", ".join(map(repr, strategy.representations))
        raise ValueError(
            f"`strategy` {strategy} is for the representations {names}; `representation` is "
            f"{representation!r}."
        )
    return strategy


@torch.no_grad()
def _shrink(linear: nn.Linear, bias: Tensor) -> None:
    """Shrink the weights of a layer a hundredfold and set its bias."""
    linear.weight.mul_(NEAR)
    linear.bias.copy_(bias)


def precise(linear: nn.Linear, features: Tensor) -> Tensor:
    """Apply `linear`, not in half precision under autocast.

    The gradient of a map is as large as its raw numbers are small, and leaves float16 (beyond 65,504) for raw
    numbers that training meets.
    """
    if is_symbol(features):
        return in_precision_of_weights(features, linear.weight, linear.bias)
    if not is_autocast(features):
        return linear(features)
    with no_autocast(features):
        return linear(features.to(linear.weight.dtype))


def in_precision_of_weights(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply the numbers of a linear layer, in a program that knows no layers, as `precise` does."""
    if is_symbol(features):
        return leaf(in_precision_of_weights, features, weight, bias)
    if not is_autocast(features):
        return nn.functional.linear(features, weight, bias)
    with no_autocast(features):
        return nn.functional.linear(features.to(weight.dtype), weight, bias)


class RigidHead(nn.Module):
    """Regress rigid motions from features, target = R source + t: a `RotationHead` and a linear layer.

    Args:
        in_features: size of the last dimension of the input.
        representation, strategy: see `RotationHead`.
        near_identity: start with motions near the identity; see `RotationHead`.

    Shape:
        (..., in_features) -> rotation (..., 3, 3) and translation (..., 3). A pair, which every exporter
        takes; `svdrot.losses` takes it as it is, and `svdrot.registration.Transform(*pair, scale)` is the
        motion itself.

    Raises:
        ValueError: if `representation` or `strategy` is not one of those of `RotationHead`, or they do not
            fit.

    Example:
        >>> import torch, svdrot
        >>> head = svdrot.nn.RigidHead(16, "6d")
        >>> rotation, translation = head(torch.randn(8, 16))
        >>> rotation.shape, translation.shape
        (torch.Size([8, 3, 3]), torch.Size([8, 3]))
        >>> truth, model = (svdrot.random_rotation(8), torch.randn(8, 3)), torch.randn(100, 3)
        >>> svdrot.losses.add((rotation, translation), truth, model).mean().backward()
    """

    def __init__(
        self,
        in_features: int,
        representation: str,
        strategy: str | Strategy = "always",
        *,
        near_identity: bool = False,
    ):
        super().__init__()
        self.rotation: RotationHead = RotationHead(
            in_features, representation, strategy, near_identity=near_identity
        )
        self.translation: nn.Linear = nn.Linear(in_features, 3)
        if near_identity:
            _shrink(self.translation, torch.zeros_like(self.translation.bias))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return a rotation and a translation for each vector of features.

        Args:
            features: shape (..., in_features), floating point.

        Returns:
            Rotations (..., 3, 3), or in training what the strategy gives in their place, and translations
            (..., 3).

        Raises:
            ValueError: if the last dimension is not `in_features`.
            TypeError: if `features` is not floating point.
        """
        if is_inner(self, features):
            return inner(self, features)
        return self.rotation(features), precise(self.translation, features)
