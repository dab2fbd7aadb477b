"""Weighted centroids, cross-covariance and variance of pairs of points (B, N, d), in float64."""

import torch
from torch import Tensor


def centred(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means of x and y, (B, d), their covariance (y by x), (B, d, d), and the variance of x, (B,)."""
    x, y, w = _live(x, y, w)
    mean_x, mean_y = (w * x).sum(1), (w * y).sum(1)
    x, y = x - mean_x[:, None], y - mean_y[:, None]
    return mean_x, mean_y, (w * y).mT @ x, (w * x.square()).sum((1, 2))


def uncentred(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    x, y, w = _live(x, y, w)
    return (w * y).mT @ x


def residual(x: Tensor, y: Tensor, w: Tensor, rotation: Tensor, translation: Tensor, scale: Tensor) -> Tensor:
    """Root of the weighted mean square of scale * rotation @ x + translation - y."""
    x, y, w = _live(x, y, w)
    left = scale[:, None, None] * (x @ rotation.mT) + translation[:, None] - y
    return (w * left.square()).sum((1, 2)).sqrt()


def _live(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In float64, weights to a total of 1 (or 0), and zeros where the weight is zero."""
    x, y, w = x.double(), y.double(), w.double()[..., None]
    w = torch.where(w < 0, torch.nan, w)
    x, y = torch.where(w == 0, 0, x), torch.where(w == 0, 0, y)
    total = w.sum(1, keepdim=True)
    return x, y, w / torch.where(total == 0, 1, total)
