"""A loss as a module: its function, its settings and how a batch becomes one number."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from svdrot._precision import compute_dtype


def _mean(values: Tensor) -> Tensor:
    return values.mean()


def _sum(values: Tensor) -> Tensor:
    return values.sum()


def _none(values: Tensor) -> Tensor:
    return values


REDUCTIONS = {"mean": _mean, "sum": _sum, "none": _none}


class ReducedLoss(nn.Module):
    """Compute a per-element loss, then its mean, its sum, or nothing.

    Args:
        loss: a function of `svdrot.losses`, or any other that gives a tensor.
        reduction: "mean", "sum" or "none", over all elements, in float32 or better.
        settings: further keyword arguments of the loss in every call.

    Shape:
        the arguments of `loss` -> (), or (...) for "none". The mean of no elements is NaN.

    Raises:
        ValueError: if `reduction` is none of the three.

    Example:
        >>> import torch, svdrot
        >>> loss = svdrot.losses.ReducedLoss(svdrot.losses.huber_geodesic, threshold=0.2)
        >>> estimate = svdrot.axis_angle_to_matrix(torch.tensor([[0.0, 0.0, 0.1], [1.0, 0.0, 0.0]]))
        >>> loss(estimate, torch.eye(3))
        tensor(0.0925)
    """

    def __init__(self, loss: Callable[..., Tensor], /, reduction: str = "mean", **settings: Any):
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"`reduction` must be 'mean', 'sum' or 'none'; got {reduction!r}.")
        self.loss = loss
        self.reduction = reduction
        self.settings: dict[str, Any] = settings

    def forward(self, *arguments: Any, **keywords: Any) -> Tensor:
        """Return the reduced loss.

        Args:
            arguments, keywords: of the loss, besides the settings of this module.

        Returns:
            Shape (), or that of the loss for "none"; in float32 or better.
        """
        values = self.loss(*arguments, **self.settings, **keywords)
        return REDUCTIONS[self.reduction](values.to(compute_dtype(values)))

    def extra_repr(self) -> str:
        """Return the loss, the reduction and the settings, as `print` shows them."""
        name = getattr(self.loss, "__name__", repr(self.loss))
        settings = "".join(f", {key}={value!r}" for key, value in self.settings.items())
        return f"{name}, reduction={self.reduction!r}{settings}"
