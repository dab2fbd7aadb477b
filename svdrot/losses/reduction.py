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
    """A per-element loss, then its mean, its sum, or nothing: `ReducedLoss(huber_geodesic, threshold=0.1)`.

    Args:
        loss: a function of `svdrot.losses`, or any other that gives a tensor.
        reduction: "mean", "sum" or "none", over all elements, in float32 or better.
        settings: further keyword arguments of every call.

    Shape:
        What `loss` takes -> (), or (...) for "none". The mean of no elements is NaN.

    Raises:
        ValueError: if `reduction` is none of the three.
    """

    def __init__(self, loss: Callable[..., Tensor], /, reduction: str = "mean", **settings: Any):
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"`reduction` must be 'mean', 'sum' or 'none'; got {reduction!r}.")
        self.loss = loss
        self.reduction = reduction
        self.settings: dict[str, Any] = settings

    def forward(self, *arguments: Any, **keywords: Any) -> Tensor:
        values = self.loss(*arguments, **self.settings, **keywords)
        return REDUCTIONS[self.reduction](values.to(compute_dtype(values)))

    def extra_repr(self) -> str:
        name = getattr(self.loss, "__name__", repr(self.loss))
        settings = "".join(f", {key}={value!r}" for key, value in self.settings.items())
        return f"{name}, reduction={self.reduction!r}{settings}"
