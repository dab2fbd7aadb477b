"""Alignment of vectors as scipy has it: root of the sum left, sensitivity, a weight that may be infinite."""

import torch
from torch import Tensor

from svdrot._checks import check_shape
from svdrot._vectors import image, product, root
from svdrot.registration import procrustes
from svdrot.vectors import rotation_between


def aligned(a: Tensor, b: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rotation of b to a, (..., 3, 3), the root of sum w |R b - a|^2, (...), and the sensitivity.

    The sensitivity, (..., 3, 3), times the variance of the error of a vector is the covariance of the
    rotation (Markley and Mortari 2000); NaN where a weight is infinite.
    """
    dtype = torch.promote_types(a.dtype, b.dtype)
    a, b = a.to(dtype), b.to(dtype)
    a, b = (v[None] if v.ndim == 1 else v for v in (a, b))
    check_shape("a", a, 3)
    if a.shape != b.shape:
        raise ValueError(f"`a` and `b` must have the same shape; got {tuple(a.shape)} and {tuple(b.shape)}.")
    w = torch.ones(a.shape[-2], dtype=dtype, device=a.device) if weights is None else weights.to(a)
    check_shape("weights", w, a.shape[-2])
    certain = torch.ones_like(w, dtype=torch.bool) if a.shape[-2] == 1 else w.isposinf()
    if certain.any():
        return _fixed(a, b, w, certain)
    found = procrustes(b, a, w)
    c = (w[..., None, None] * a[..., :, None] * b[..., None, :]).sum(-3)
    return found.rotation, _left(found.rotation, a, b, w), _sensitivity(found.rotation, c, w.mean(-1))


def _left(rotation: Tensor, a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    off = (a - image(rotation[..., None, :, :], b)).square().sum(-1)
    return root((w * off).sum(-1))


def _sensitivity(rotation: Tensor, c: Tensor, mean: Tensor) -> Tensor:
    """Return mean (kappa I + C C^T) / zeta of the signed singular values of C (Markley and Mortari)."""
    symmetric = product(rotation.mT, c)
    s = torch.linalg.eigvalsh((symmetric + symmetric.mT) / 2)
    x, y, z = s.unbind(-1)
    zeta, kappa = (x + y) * (y + z) * (z + x), x * y + y * z + z * x
    one = torch.eye(3, dtype=c.dtype, device=c.device)
    return (mean / zeta)[..., None, None] * (kappa[..., None, None] * one + product(c, c.mT))


def _fixed(a: Tensor, b: Tensor, w: Tensor, certain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Align one pair exactly, and the others by the turn that this leaves."""
    if a.ndim != 2 or w.ndim != 1 or certain.sum() != 1:
        raise ValueError("`weights` may be infinite for one pair of a single cloud.")
    k = int(certain.to(torch.uint8).argmax())
    onto = rotation_between(b[k], a[k])
    rest = torch.where(certain, 0, w)
    turn = procrustes(image(onto, b), a, rest, motion="yaw", axis=a[k]).rotation
    rotation = product(turn, onto) if len(a) > 1 else onto
    finite = torch.where(w.isposinf(), 0, w)
    return rotation, _left(rotation, a, b, finite), torch.full_like(rotation, torch.nan)
