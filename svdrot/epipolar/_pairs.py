"""Pairs of image points as arguments."""

import torch
from torch import Tensor

from svdrot._checks import check_floating, check_mask, check_shape, common_batch


def pairs(
    a: Tensor,
    b: Tensor,
    weights: Tensor | None,
    mask: Tensor | None,
    **beside: torch.Size,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return checked pairs (..., N, 2) and weights (..., N) in float64, and which items are broken, (...).

    All have one batch, with that of what is `beside` them. A pair that does not count is 0, unless it is
    finite and only its weight is 0.
    """
    check_floating("a", a)
    if a.ndim < 2 or a.shape[-1] != 2:
        raise ValueError(f"`a` must have shape (..., N, 2); got {tuple(a.shape)}.")
    n = a.shape[-2]
    check_shape("b", b, n, 2)
    w = a.new_ones(n) if weights is None else weights
    check_shape("weights", w, n)
    counts = torch.ones(n, dtype=torch.bool, device=a.device) if mask is None else check_mask("mask", mask, n)
    sizes = {"a": a.shape[:-2], "b": b.shape[:-2], "weights": w.shape[:-1], "mask": counts.shape[:-1]}
    batch = common_batch(**beside, **sizes)
    a, b = (x.double().expand(*batch, n, 2) for x in (a, b))
    w = torch.where(counts, w.double(), 0.0).expand(*batch, n)
    finite = a.isfinite().all(-1) & b.isfinite().all(-1)
    unread = ~counts | ((w == 0) & ~finite)
    a, b = (torch.where(unread[..., None], 0.0, x) for x in (a, b))
    broken = ((~finite & ~unread) | ~w.isfinite() | (w < 0)).any(-1)
    return a, b, w, broken
