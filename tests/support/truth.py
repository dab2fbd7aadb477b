"""The projection, its gap and their derivatives in 50 digits, independent of the library's formulas.

With M = U S Vᵀ, U and V rotations and the last singular value signed: R = U Vᵀ; the derivative of R along T
is U [(A_ij - A_ji) / (s_i + s_j)] Vᵀ with A = UᵀTV, and that of the gap s2 + s3 is u2 v2ᵀ + u3 v3ᵀ. Results
are pairs (high, low) of float64 tensors, 32 digits in all: an error of a few last places is exact.
"""

import mpmath
import torch
from torch import Tensor

mpmath.mp.dps = 50


class Truth:
    def __init__(self, matrix: Tensor):
        """`matrix`: (B, 3, 3), taken as exact."""
        self._factors = [_decompose(m) for m in matrix]
        self.rotation = _pairs([u * vh for u, _, vh in self._factors])
        self.gap = torch.tensor([float(s[1] + s[2]) for _, s, _ in self._factors], dtype=torch.float64)
        self.largest = torch.tensor([float(s[0]) for _, s, _ in self._factors], dtype=torch.float64)
        self.second = torch.tensor([float(s[1]) for _, s, _ in self._factors], dtype=torch.float64)
        self.gap_derivative = _pairs([u[:, 1:] * vh[1:, :] for u, _, vh in self._factors])

    def differential(self, tangent: Tensor) -> tuple[Tensor, Tensor]:
        results = []
        for (u, s, vh), t in zip(self._factors, tangent, strict=True):
            a = u.T * mpmath.matrix(t.tolist()) * vh.T
            x = mpmath.matrix(3, 3)
            for i in range(3):
                for j in range(3):
                    x[i, j] = (a[i, j] - a[j, i]) / (s[i] + s[j]) if i != j else 0
            results.append(u * x * vh)
        return _pairs(results)


def error(computed: Tensor, exact: tuple[Tensor, Tensor]) -> Tensor:
    """Frobenius norm of computed - exact, shape (B,), float64."""
    high, low = exact
    return ((computed.double() - high) - low).norm(dim=(-2, -1))


def _decompose(m: Tensor):
    m = mpmath.matrix(m.tolist())
    scale = max(abs(x) for x in m)
    u, s, vh = mpmath.svd_r(m / scale)
    s = [x * scale for x in s]
    if mpmath.det(u) * mpmath.det(vh) < 0:
        s[2] = -s[2]
        u[:, 2] = -u[:, 2]
    return u, s, vh


def _pairs(matrices) -> tuple[Tensor, Tensor]:
    rows = [[[m[i, j] for j in range(3)] for i in range(3)] for m in matrices]
    high = [[[float(x) for x in row] for row in m] for m in rows]
    low = [
        [[float(x - h) for x, h in zip(*r, strict=True)] for r in zip(*m, strict=True)]
        for m in zip(rows, high, strict=True)
    ]
    return torch.tensor(high, dtype=torch.float64), torch.tensor(low, dtype=torch.float64)
