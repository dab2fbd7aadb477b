"""The projection and its differential in 50-digit arithmetic (mpmath), from the singular value decomposition.

With M = U S Vᵀ, U and V rotations and the last singular value signed: R = U Vᵀ, and the differential in direction T is
U [(A_ij - A_ji) / (s_i + s_j)] Vᵀ with A = Uᵀ T V. Slow, and independent of every formula in the library.
"""

from functools import cache

import mpmath
import torch
from torch import Tensor

mpmath.mp.dps = 50


def _matrix(m: Tensor) -> mpmath.matrix:
    return mpmath.matrix(m.tolist())


@cache
def _decompose(entries: tuple[tuple[float, ...], ...]):
    m = mpmath.matrix(entries)
    scale = max(abs(x) for x in m)
    u, s, vh = mpmath.svd_r(m / scale)
    s = [x * scale for x in s]
    if mpmath.det(u) * mpmath.det(vh) < 0:
        s[2] = -s[2]
        u[:, 2] = -u[:, 2]
    return u, s, vh


def _rows(matrix: Tensor):
    return [_decompose(tuple(map(tuple, m.tolist()))) for m in matrix]


def _tensor(rows) -> list:
    return [[[x for x in m[i, :]] for i in range(3)] for m in rows]


def rotation(matrix: Tensor) -> list[mpmath.matrix]:
    return [u * vh for u, _, vh in _rows(matrix)]


def gap(matrix: Tensor) -> list[mpmath.mpf]:
    return [s[1] + s[2] for _, s, _ in _rows(matrix)]


def relative_gap(matrix: Tensor) -> Tensor:
    """(s2 + s3) / s1 with s3 signed, shape (B,), float64."""
    return torch.tensor([float((s[1] + s[2]) / s[0]) for _, s, _ in _rows(matrix)], dtype=torch.float64)


def differential(matrix: Tensor, tangent: Tensor) -> list[mpmath.matrix]:
    results = []
    for (u, s, vh), t in zip(_rows(matrix), tangent, strict=True):
        a = u.T * _matrix(t) * vh.T
        x = mpmath.matrix(3, 3)
        for i in range(3):
            for j in range(3):
                if i != j:
                    x[i, j] = (a[i, j] - a[j, i]) / (s[i] + s[j])
        results.append(u * x * vh)
    return results


def error(computed: Tensor, exact: list[mpmath.matrix]) -> Tensor:
    """Frobenius norm of computed - exact, relative to that of exact; shape (B,), float64."""
    norms = [
        mpmath.norm(_matrix(c) - e) / mpmath.norm(e) if mpmath.norm(e) else mpmath.norm(_matrix(c))
        for c, e in zip(computed, exact, strict=True)
    ]
    return torch.tensor([float(n) for n in norms], dtype=torch.float64)
