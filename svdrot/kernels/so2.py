"""2x2 matrices in closed form, in torch operations. Contract: `svdrot.kernels`.

The inner product of M with the rotation (c, -s; s, c) is c x + s y, with x = m00 + m11 and y = m10 - m01; so
the nearest rotation is (x, y) / |(x, y)|, and |(x, y)| = s1 + s2 (s2 signed) is both tr(RᵀM) and the gap.
"""

import torch
from torch import Tensor


def special_orthogonalize(m: Tensor) -> Tensor:
    x, y, _ = _direction(m)
    return _rotation(x, y)


def special_orthogonalize_differential(m: Tensor, r: Tensor, t: Tensor, damping: float) -> Tensor:
    """R [w]x with (s1 + s2) w = (RᵀT - TᵀR)_10, inverted as g / (g² + (damping |M|)²)."""
    scale = _scale(m)
    m = m / scale[:, None, None]
    gap = (r * m).sum((-2, -1))
    a = r.mT @ t
    square = gap.square() + damping**2 * m.square().sum((-2, -1)) + torch.finfo(m.dtype).tiny
    w = gap * (a[:, 1, 0] - a[:, 0, 1]) / square / scale
    return torch.stack((r[:, :, 1], -r[:, :, 0]), -1) * w[:, None, None]


def projection_gap(m: Tensor) -> tuple[Tensor, Tensor]:
    x, y, gap = _direction(m)
    return gap, _rotation(x, y)


def _direction(m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosine and sine of the nearest rotation (1 and 0 where every rotation is nearest), and the gap."""
    scale = _scale(m)
    x, y = (m[:, 0, 0] + m[:, 1, 1]) / scale, (m[:, 1, 0] - m[:, 0, 1]) / scale
    bad = m.isfinite().logical_not().any(-1).any(-1)
    square = x.square() + y.square()
    ambiguous = square == 0
    norm = torch.where(ambiguous, 1, square).sqrt() + torch.where(bad, torch.nan, 0)
    gap = torch.where(ambiguous, 0, norm) * scale
    return torch.where(ambiguous, 1, x) / norm, y / norm, gap


def _rotation(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack((x, -y, y, x), -1).unflatten(-1, (2, 2))


def _scale(m: Tensor) -> Tensor:
    return m.detach().abs().amax((-2, -1)).clamp_min(torch.finfo(m.dtype).tiny)
