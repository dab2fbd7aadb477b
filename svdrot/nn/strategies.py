"""When a head projects: modules that take raw numbers (..., features) to matrices (..., 3, 3).

The literature disagrees. Levinson et al. 2020 and Brégier 2021 find the projection in training better than
the raw matrix, Chen et al. 2022, Gu et al. 2024 (PRoM) and Choy 2026 the contrary.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from svdrot import _autograd
from svdrot._checks import check_shape
from svdrot._precision import compute_dtype, result_dtype

from . import manifold_gradient
from .representations import REPRESENTATIONS

COUNTS = {"step"}  # the buffers of strategies


class Strategy(nn.Module):
    """Decide which matrices a head makes of raw numbers, in training and after it.

    In `eval()` every strategy gives rotations, the map of the representation, and a checkpoint of a head
    loads into a head of any other strategy. A subclass defines `forward`, and `representations` if it is not
    for all of them.

    Example:
        >>> import torch, svdrot
        >>> class Detached(svdrot.nn.Strategy):
        ...     "Rotations without a gradient."
        ...     def forward(self, raw, representation):
        ...         return svdrot.nn.REPRESENTATIONS[representation].to_matrix(raw.detach())
        >>> head = svdrot.nn.RotationHead(16, "6d", strategy=Detached())
        >>> head(torch.randn(8, 16)).requires_grad
        False
    """

    representations: Collection[str] = REPRESENTATIONS  # it is defined for: all, added ones, too

    def forward(self, raw: Tensor, representation: str) -> Tensor:
        """Return a matrix for each vector of raw numbers.

        Args:
            raw: shape (..., features).
            representation: the name of the representation, a key of `REPRESENTATIONS`.

        Returns:
            Matrices, shape (..., 3, 3): rotations, at least in `eval()`.

        Raises:
            NotImplementedError: by this class, which leaves it to its subclasses.
            ValueError: if the last dimension is not that of the representation.
            TypeError: if `raw` is not floating point.
        """
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, *lists) -> None:
        """Load a checkpoint of any strategy: a missing count of steps is 0, a needless one is dropped."""
        for name, buffer in self.named_buffers(recurse=False):
            # What `assign` puts in place of a buffer without data must have data, as in torch's own norms.
            device = "cpu" if buffer.is_meta else buffer.device
            state_dict.setdefault(prefix + name, torch.zeros_like(buffer, device=device))
        for name in COUNTS - {name for name, _ in self.named_buffers(recurse=False)}:
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)


class Always(Strategy):
    """Give rotations in training, too, with the gradient of the map (SVD-Train).

    Source:
        Levinson et al., "An Analysis of SVD for Deep Rotation Estimation", NeurIPS 2020.

    Example:
        >>> import torch, svdrot
        >>> head = svdrot.nn.RotationHead(16, "svd", strategy="always")  # the default
        >>> svdrot.is_rotation(head(torch.randn(8, 16))).all()
        tensor(True)
    """

    def forward(self, raw: Tensor, representation: str) -> Tensor:
        """Return the rotation of the raw numbers.

        Args:
            raw, representation: see `Strategy.forward`.

        Returns:
            Rotations, shape (..., 3, 3).
        """
        return REPRESENTATIONS[representation].to_matrix(raw)


class AtInference(Strategy):
    """Give the raw 3 x 3 matrix in training, its nearest rotation in `eval()` (SVD-Inference, PRoM).

    The loss must take any matrix: `svdrot.losses.raw_9d`.

    Source:
        Levinson et al., NeurIPS 2020; Gu et al., "Learning Unorthogonalized Matrices for Rotation
        Estimation", arXiv 2312.00462 (PRoM).

    Example:
        >>> import torch, svdrot
        >>> head = svdrot.nn.RotationHead(16, "svd", strategy="inference")
        >>> features, truth = torch.randn(8, 16), svdrot.random_rotation(8)
        >>> svdrot.losses.raw_9d(head(features), truth).mean().backward()
        >>> svdrot.is_rotation(head.eval()(features)).all()
        tensor(True)
    """

    representations: Collection[str] = ("svd",)

    def forward(self, raw: Tensor, representation: str) -> Tensor:
        """Return the raw matrix in training, the rotation in `eval()`.

        Args:
            raw, representation: see `Strategy.forward`.

        Returns:
            Matrices, shape (..., 3, 3).
        """
        return _matrix(raw) if self.training else REPRESENTATIONS[representation].to_matrix(raw)


class AfterWarmup(Strategy):
    """Give the raw 3 x 3 matrix in the first steps of training, its nearest rotation from then on.

    A step is a forward pass in training mode with gradients. Their count is a buffer, `step`: it is saved
    with the head, goes on from there, and is 0 for checkpoints that have none. Gradients in the first steps
    are much smaller than those through a projection of random matrices.

    Under `torch.func` transforms, give the buffers as arguments, with `functional_call`, as for every module
    that counts. Keep the head out of activation checkpointing, whose second forward pass would count, too.

    Args:
        steps: number of steps with the raw matrix, at least 0. Levinson et al. took 100,000 of 2,600,000.

    Raises:
        ValueError: if `steps` is not a whole number >= 0.

    Source:
        Levinson et al., NeurIPS 2020.

    Example:
        >>> import torch, svdrot
        >>> head = svdrot.nn.RotationHead(16, "svd", strategy=svdrot.nn.AfterWarmup(steps=1))
        >>> features = torch.randn(8, 16)
        >>> svdrot.is_rotation(head(features)).any(), svdrot.is_rotation(head(features)).all()
        (tensor(False), tensor(True))
    """

    representations: Collection[str] = ("svd",)

    step: Tensor

    def __init__(self, steps: int):
        super().__init__()
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
            raise ValueError(f"`steps` must be an integer >= 0; got {steps!r}.")
        self.steps = steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, raw: Tensor, representation: str) -> Tensor:
        """Return the raw matrix in the first steps of training, the rotation after them; count the step.

        Args:
            raw, representation: see `Strategy.forward`.

        Returns:
            Matrices, shape (..., 3, 3).
        """
        rotation = REPRESENTATIONS[representation].to_matrix(raw)
        if not self.training:
            return rotation
        warming = self.step < self.steps
        if torch.is_grad_enabled():
            self.step.add_(1)
        return torch.where(warming, _matrix(raw), rotation)  # both computed: no wait for a GPU, one graph

    def reset_parameters(self) -> None:
        """Count from 0 again; torch calls this name where a module got memory without values, by `to_empty`.

        Example:
            >>> import torch, svdrot
            >>> with torch.device("meta"):
            ...     head = svdrot.nn.RotationHead(16, "svd", strategy=svdrot.nn.AfterWarmup(steps=1))
            >>> head = head.to_empty(device="cpu")
            >>> for module in (head.linear, head.strategy):
            ...     module.reset_parameters()
            >>> head.strategy.step
            tensor(0)
        """
        self.step.zero_()

    def extra_repr(self) -> str:
        """Return the number of steps, as `print` shows it."""
        return f"steps={self.steps}"


def _matrix(raw: Tensor) -> Tensor:
    """Return nine raw numbers as a matrix (..., 3, 3)."""
    check_shape("raw", raw, 9)
    return raw.to(result_dtype(raw)).unflatten(-1, (3, 3))


class ManifoldGradient(Strategy):
    """Give rotations always, and the raw numbers the projective manifold gradient of Chen et al. 2022 (RPMG).

    This gradient is the smallest change of the raw numbers that turns the rotation as the loss wants, however
    large or small or close to a singularity they are, plus a pull to the standard numbers of the same
    rotation. Both
    are proportional to the gradient of the loss with respect to the rotation: losses may be sums or means,
    weighted, scaled, or added to others. See `svdrot.nn.manifold_gradient` for what that changes.

    It is not the derivative of anything: finite differences disagree with it, forward-mode derivatives
    raise.

    Args:
        pull: how much of the distance to the standard numbers goes into the gradient per radian of the
            descent, at least 0.

    Raises:
        ValueError: if `pull` is not finite and at least 0.

    Source:
        Chen et al., "Projective Manifold Gradient Layer for Deep Rotation Regression", CVPR 2022.

    Example:
        >>> import torch, svdrot
        >>> head = svdrot.nn.RotationHead(16, "6d", strategy=svdrot.nn.ManifoldGradient(pull=0.1))
        >>> rotation = head(torch.randn(8, 16))
        >>> svdrot.losses.squared_geodesic(rotation, svdrot.random_rotation(8)).sum().backward()
        >>> head.linear.weight.grad.isfinite().all()
        tensor(True)
    """

    representations: Collection[str] = tuple(manifold_gradient.FIBERS)

    def __init__(self, pull: float = 0.05):
        super().__init__()
        if not 0 <= pull < float("inf"):
            raise ValueError(f"`pull` must be finite and at least 0; got {pull}.")
        self.pull = pull

    def forward(self, raw: Tensor, representation: str) -> Tensor:
        """Return the rotation of the raw numbers, which get the manifold gradient in `backward()`.

        Args:
            raw, representation: see `Strategy.forward`.

        Returns:
            Rotations, shape (..., 3, 3).

        Raises:
            ValueError: if the last dimension is not that of the representation.
            TypeError: if `raw` is not floating point.
        """
        to_matrix = REPRESENTATIONS[representation].to_matrix
        if _autograd.is_recorded() or not torch.is_grad_enabled():
            return to_matrix(raw)
        check_shape("raw", raw, REPRESENTATIONS[representation].features)
        x = raw.to(compute_dtype(raw))
        with torch.no_grad():
            rotation = to_matrix(x)
        return manifold_gradient.attach(x, rotation, representation, self.pull).to(result_dtype(raw))

    def extra_repr(self) -> str:
        """Return the pull, as `print` shows it."""
        return f"pull={self.pull}"


STRATEGIES: dict[str, type[Strategy]] = {
    "always": Always,
    "inference": AtInference,
    "manifold_gradient": ManifoldGradient,
}
