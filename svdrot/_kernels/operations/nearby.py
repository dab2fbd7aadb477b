r"""Polar factors of matrices that are nearly orthonormal, as weights are after a step: by a few products.

With E = I - XᵀX the factor is X (I - E)^(-1/2), of which the series in E is cut off as soon as what it leaves
is rounding: after one term, two, or four,

    X (I + E / 2),   X (I + E / 2 + 3 E² / 8),   X (I + E / 2 + 3 E² / 8 + E² (5 E / 16 + 35 E² / 128)),

in 2, 3 and 4 products, which leave 3 E² / 4, 5 E³ / 8 and 63 E⁵ / 128 of E. How large these powers are is
told by the image of one vector, at a fraction of a product. If none is small enough, the second is taken and
all begins anew, which converges if no singular value of X is beyond √(7 / 3), and then to the polar factor:
the polynomials are positive, and turn no direction around. What is farther off goes the way of any matrix
(`any_size`).
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from svdrot._kernels import products
from svdrot._precision import in_full_precision
from svdrot.engine.memory import in_memory

from . import any_size, iteration

FEWEST = 40  # columns: of smaller ones kernels take every step in less time than this takes for three
FAR = 1.2  # growth of images by E from which on steps lead nowhere, or not soon: beyond 1.33 they diverge
MOST_STEPS = 6
UNITS = 2.0  # of rounding that may be left: the root mean square of the singular values of E


@in_full_precision
def orthogonalize(m: Tensor) -> Tensor:
    """The nearest matrices with orthonormal columns, of (B, m, n), m >= n; no derivatives."""
    if m.shape[-1] < FEWEST or not m.numel() or not in_memory(m):
        return any_size.orthogonalize(m)
    found = _polished(m)
    if found is not None:
        return found
    if max(m.shape[-2:]) <= products.LARGE[m.dtype]:
        return any_size.orthogonalize(m)
    return any_size.by_products(m)


@in_full_precision
def special_orthogonalize(m: Tensor, before: Tensor | None = None) -> Tensor:
    """The nearest rotations, of (B, n, n); no derivatives.

    Less than 1 away from rotations that are known, a matrix has a positive determinant: on the way there none
    is singular. Without such knowledge it takes an elimination to tell.
    """
    if m.shape[-1] < FEWEST or not m.numel() or not in_memory(m):
        return any_size.special_orthogonalize(m)
    near = before is not None and before.shape == m.shape and _largest(m - before) < 0.9
    if near or bool((torch.linalg.slogdet(m).sign > 0).all()):
        return orthogonalize(m)
    return any_size.special_orthogonalize(m)


def _polished(x: Tensor) -> Tensor | None:
    n = x.shape[-1]
    one, left = iteration.eye(n, x), UNITS * torch.finfo(x.dtype).eps * math.sqrt(n)
    for _ in range(MOST_STEPS):
        e = iteration.residual(x, one)
        v = e @ (e @ _spread(n, x))
        second = _largest(v)
        if 0.75 * second <= left:
            return torch.baddbmm(x, x, e, alpha=0.5)
        v = e @ v
        third = _largest(v)
        if not third <= FAR * second:
            return None
        square = e @ e
        if 0.625 * third <= left:
            return torch.baddbmm(x, x, e.mul_(0.5).add_(square, alpha=0.375))
        if 0.5 * _largest(square @ v) <= left:
            higher = torch.mul(square, 35 / 128).add_(e, alpha=0.3125)
            higher.diagonal(dim1=-2, dim2=-1).add_(0.375)
            return torch.baddbmm(x, x, torch.baddbmm(e, square, higher, beta=0.5))
        x = torch.baddbmm(x, x, e.mul_(0.5).add_(square, alpha=0.375))
    return None


def _spread(n: int, like: Tensor) -> Tensor:
    """A vector of length √n by whose images sizes of matrices are judged.

    Equally distributed numbers (the golden ratio's multiples, modulo 1), of which no E that a training makes
    knows anything.
    """
    return _made(n, like.dtype, like.device)


@lru_cache(256)
def _made(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        v = torch.arange(1, n + 1, dtype=torch.float64).mul_(0.6180339887498949).frac_().sub_(0.5)
        return v.mul_(math.sqrt(12))[:, None].to(device, dtype)


def _largest(x: Tensor) -> float:
    norm = torch.linalg.vector_norm(x, dim=(-2, -1))
    return norm.item() if len(norm) == 1 else norm.max().item()


@in_full_precision
def orthonormality(q: Tensor) -> Tensor:
    """The largest entry of |QᵀQ - I|, (...)."""
    return (q.mT @ q - iteration.eye(q.shape[-1], q)).abs().amax((-2, -1))
