r"""Weighted moments of pairs of points in torch operations, any d; the specification of the other backends.

    moments(x, y, w, centered) -> (m, pivots)                 x, y (B, N, d), w (B, N) or None
    moments_gradient(x, y, w, pivots, m, g) -> (gx, gy, gw)  m and g (B, K)
    misfit(x, y, w, pivots, m, scaled_rotation) -> sums      (B, d, d) -> (B,)

A row of m, K = 2 + 2d + d², holds the total weight n, centroids a and b of x and y relative to the pivots
(B, 2d), and about them, over n, the covariance $\sum w (y - b)(x - a)^\top$ and the variance
$\sum w |x - a|^2$. Not centered, a and b are 0. Points and weights are float32 or float64, all else float64;
the moments are as exact as the points. The pivot is the first pair that counts, or 0: nothing cancels far
from the origin.

With R the rotation nearest to the covariance C, the scale is s = <R, C> / v, or 1, and the translation t = q
- s R p for the centroids p and q, or 0 if not centered: `placed` for any d, `svdrot._formulas.poses` for 3.

A pair of weight 0 counts for nothing, whatever its coordinates; if they are not finite, the gradient of its
weight is 0, too. A negative weight is NaN. Without any weight the moments are 0, and so are their gradients;
on a CPU that is so from where the total has no reciprocal in the type of the points.
"""

import math

import torch
from torch import Tensor


def moments(x: Tensor, y: Tensor, w: Tensor | None, centered: bool) -> tuple[Tensor, Tensor]:
    pivots = first_that_counts(x, y, w)
    pivots = pivots if centered else pivots * 0
    x, y, w = _relative(x, y, w, pivots)
    n = w.sum(1)
    share = w / torch.where(n == 0, 1, n)[:, None]
    a, b = (share * x).sum(1), (share * y).sum(1)
    if not centered:
        a, b = a * 0, b * 0
    x, y = x - a[:, None], y - b[:, None]
    covariance, variance = (share * y).mT @ x, (share * x.square()).sum((1, 2))
    return torch.cat((n, a, b, covariance.flatten(1), variance[:, None]), -1), pivots


def first_that_counts(x: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
    if x.shape[1] == 0:
        return x.new_zeros(x.shape[0], 2 * x.shape[-1], dtype=torch.float64)
    if w is None:
        return torch.cat((x[:, 0], y[:, 0]), -1).double()
    counts = w != 0
    rows, first = torch.arange(w.shape[0], device=w.device), counts.to(torch.int8).argmax(1)
    pairs = torch.cat((x[rows, first], y[rows, first]), -1).double()
    return torch.where(counts[rows, first, None], pairs, 0)


def moments_gradient(
    x: Tensor, y: Tensor, w: Tensor | None, pivots: Tensor, m: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    dtype, weighted = x.dtype, w is not None
    ignored = _ignored(x, y, w)
    x, y, w = _relative(x, y, w, pivots)
    n, a, b, c, v = split(m)
    gn, ga, gb, gc, gv = (part[:, None] for part in split(g))
    inverse = (1 / torch.where(n == 0, 1, n))[:, None]
    x, y = x - a[:, None], y - b[:, None]
    along = ga + y @ gc[:, 0] + gv * x
    gx, gy = (w * inverse * z for z in (along + gv * x, gb + x @ gc[:, 0].mT))
    if not weighted:
        return gx.to(dtype), gy.to(dtype), None
    constant = ((gc[:, 0] * c).sum((-2, -1)) + (gv[:, 0] * v)[:, 0])[:, None, None]
    gw = gn + inverse * ((along * x).sum(-1, keepdim=True) + (gb * y).sum(-1, keepdim=True) - constant)
    return gx.to(dtype), gy.to(dtype), torch.where(ignored, 0, gw)[..., 0].to(dtype)


def moments_tangent(
    x: Tensor,
    y: Tensor,
    w: Tensor | None,
    pivots: Tensor,
    m: Tensor,
    centered: bool,
    *tangents: Tensor | None,
) -> Tensor:
    """The derivative of the moments along tangents of x, y and w."""
    x, y, w = _relative(x, y, w, pivots)
    places = (x, y, w[..., 0])
    given = zip(tangents, places, strict=True)
    tx, ty, tw = (torch.zeros_like(place) if t is None else t.double() for t, place in given)
    n, a, b, c, v = split(m)
    inverse = 1 / torch.where(n == 0, 1, n)
    share, tw = inverse[:, None] * w, (inverse * tw)[..., None]
    tn = tw.sum(1)
    x, y = x - a[:, None], y - b[:, None]
    ta, tb = (share * tx + tw * x).sum(1), (share * ty + tw * y).sum(1)
    if not centered:
        ta, tb = ta * 0, tb * 0
    tc = (share * ty).mT @ x + (share * y).mT @ tx + (tw * y).mT @ x - tn[..., None] * c
    tv = (2 * share * x * tx + tw * x.square()).sum((1, 2))[:, None] - tn * v
    return torch.cat((tn * n, ta, tb, tc.flatten(1), tv), -1)


def misfit(
    x: Tensor, y: Tensor, w: Tensor | None, pivots: Tensor, m: Tensor, scaled_rotation: Tensor
) -> Tensor:
    """The weighted sum of |R (x - a) - (y - b)|²."""
    x, y, w = _relative(x, y, w, pivots)
    _, a, b, _, _ = split(m)
    left = (x - a[:, None]) @ scaled_rotation.mT - (y - b[:, None])
    return (w * left.square()).sum((1, 2))


def placed(
    m: Tensor, pivots: Tensor, nearest: Tensor, centered: bool, scaled: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotation, translation and scale, any d."""
    p, q = centroids(m, pivots)
    s = _scale(m, nearest) if scaled else torch.ones_like(m[:, 0])
    t = q - s[:, None] * (nearest * p[:, None]).sum(-1) if centered else torch.zeros_like(q)
    return nearest.to(dtype), t.to(dtype), s.to(dtype)


def _scale(m: Tensor, nearest: Tensor) -> Tensor:
    _, _, _, c, v = split(m)
    spread = v[:, 0] != 0
    along = (nearest * c).sum((-2, -1))
    if c.shape[-1] == 1:  # whose only rotation may point the wrong way
        along = along.clamp_min(0)
    return torch.where(spread, along / torch.where(spread, v[:, 0], 1), 1)


def centroids(m: Tensor, pivots: Tensor) -> tuple[Tensor, Tensor]:
    d = pivots.shape[1] // 2
    p, q = (pivots + m[:, 1 : 1 + 2 * d]).split(d, -1)
    return p, q


def split(m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """n (B, 1), a (B, d), b (B, d), covariance (B, d, d), variance (B, 1)."""
    d = math.isqrt(int(m.shape[1]) - 1) - 1
    n, a, b, c, v = m.split((1, d, d, d * d, 1), -1)
    return n, a, b, c.reshape(*c.shape[:-1], d, d), v


def _relative(x: Tensor, y: Tensor, w: Tensor | None, pivots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points relative to the pivots, zeros for what is ignored, and weights (B, N, 1), all in float64."""
    ignored = _ignored(x, y, w)
    p, q = pivots[:, None].split(x.shape[-1], -1)
    x, y = torch.where(ignored, 0, x.double() - p), torch.where(ignored, 0, y.double() - q)
    w = x.new_ones(*x.shape[:2], 1) if w is None else w.double()[..., None]
    return x, y, torch.where(w < 0, torch.nan, w)


def _ignored(x: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
    """Pairs of weight 0 whose coordinates are not finite, (B, N, 1)."""
    if w is None:
        return x.new_zeros(1, 1, 1, dtype=torch.bool)
    return ((w == 0) & ~(x.isfinite().all(-1) & y.isfinite().all(-1)))[..., None]


def merged(m: Tensor) -> Tensor:
    """Moments (B, S, 17) of segments as those of the whole; see `svdrot._kernels.pairs.merged`."""
    n = m[..., :1]
    total = n.sum(1, keepdim=True)
    share = n / torch.where(total == 0, 1, total)
    mean = (share * m[..., 1:7]).sum(1, keepdim=True)
    x, y = (m[..., 1:7] - mean).split(3, -1)
    second = torch.cat(((y[..., None] * x[..., None, :]).flatten(-2), (x * x).sum(-1, keepdim=True)), -1)
    second = (share * (m[..., 7:] + second)).sum(1)
    return torch.cat((total[:, 0], mean[:, 0], second), -1)
