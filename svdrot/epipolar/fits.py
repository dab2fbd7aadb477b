r"""The eight-point algorithm as a layer: weighted, normalized, differentiable, and told where ambiguous.

Points are moved and scaled to the weighted centroid and a mean distance of $\sqrt 2$ (Hartley, 1997). With
the row $r_i = b_i \otimes a_i$ of a pair, nine numbers, $m$ is the eigenvector of least eigenvalue of $G =
\sum w_i r_i r_i^\top / \sum w_i$, in float64. In pixels or in the coordinates of cameras it is then the
nearest matrix of its kind.

For $G + d$ the eigenvector is $m' = m - (G - \lambda)^+ (d - \delta) m'$, $\delta = m^\top d\, m'$, $m^\top
m' = 1$. Steps of that which change no number make right one order of derivatives each.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from svdrot._checks import check_choice
from svdrot._precision import compute_dtype, result_dtype
from svdrot._stand_ins import takes_arrays
from svdrot._vectors import length
from svdrot.engine.door import is_constant
from svdrot.epipolar._pairs import pairs
from svdrot.epipolar.essential import project_to_essential, project_to_rank_two
from svdrot.transform import register_pytree

KINDS = {"essential": project_to_essential, "fundamental": project_to_rank_two}
ROUNDING = 32 * 2.0**-52  # of eigenvalues of a matrix of trace 1


@dataclass(frozen=True)
class EpipolarFit:
    """Hold matrices fitted to pairs of image points, and what says how well they are determined.

    Attributes:
        matrix: shape (..., 3, 3), of Frobenius norm 1, its entry of largest absolute value positive.
        equations: the weighted mean of the outer squares of the rows, one of a pair, of which the matrix in
            normalized coordinates is the least eigenvector; of trace 1, shape (..., 9, 9), float64.

    Example:
        >>> import torch, svdrot
        >>> a, b = torch.rand(2, 20, 2, generator=torch.Generator().manual_seed(0))
        >>> fit = svdrot.epipolar.eight_point(a, b, kind="fundamental")
        >>> fit.matrix.shape
        torch.Size([3, 3])
        >>> few = svdrot.epipolar.eight_point(a[:7], b[:7], kind="fundamental")
        >>> bool(fit.gap > 0.01), bool(few.gap < 1e-6)
        (True, True)
    """

    matrix: Tensor
    equations: Tensor

    @property
    def gap(self) -> Tensor:
        """Return how far the pairs are from allowing two best matrices, shape (...), at least 0.

        The difference of the two least singular values of the equations, over their norm, so that errors of
        points, in units of their spread, are amplified by some 1 / gap; 0 means ambiguous. Fewer than eight
        pairs, a planar scene and views from one place have gap 0, but for noise. Singular values up to 8e-8
        are rounding, and count as 0.
        """
        least = self._singular_values()
        return least[..., 1] - least[..., 0]

    @property
    def residual(self) -> Tensor:
        """Return what the equations leave: their least singular value over their norm, shape (...)."""
        return self._singular_values()[..., 0]

    def _singular_values(self) -> Tensor:
        g = self.equations.detach()
        finite = g.isfinite().all(-1).all(-1)
        # `eigvalsh` takes another way where something looks on, and rounds otherwise.
        squares = torch.linalg.eigh(torch.where(finite[..., None, None], g, 0.0)).eigenvalues
        values = torch.where(squares < ROUNDING, 0.0, squares.clamp_min(ROUNDING).sqrt())
        return torch.where(finite[..., None], values, torch.nan)


register_pytree(EpipolarFit)


@takes_arrays
def eight_point(
    a: Tensor,
    b: Tensor,
    weights: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    kind: str = "essential",
) -> EpipolarFit:
    r"""Find the essential or fundamental matrix of least weighted squared algebraic error, normalized.

    Differentiable twice in points and weights, with the gradient of the exact solution.

    Args:
        a: points in the first view, shape (..., N, 2): for an essential matrix in the coordinates of the
            camera, for a fundamental one in pixels or any other units.
        b: points in the second view, pair by pair. Batch dimensions broadcast.
        weights: shape (..., N), at least 0, of any total. Default: 1.
        mask: boolean, shape (..., N): pairs that count. What does not count, or has weight 0, may be NaN.
        kind: "essential" or "fundamental".

    Returns:
        `EpipolarFit`: `matrix` (..., 3, 3) with $b^\top M a \approx 0$, and its `gap`. Its sign is such that
        the entry of largest absolute value is positive. Where the gap is 0, as of fewer than eight pairs or a
        plane, several matrices are as good: one of them is returned, with a finite gradient, zero along what
        is undefined: differences of eigenvalues count as nothing up to the square of 32 units of rounding of
        the points, fully from twice as much on. No pair, or a total weight of 0, gives some matrix with gap 0
        and zero gradient. NaN, infinity or a negative weight in a pair that counts gives NaN for its item
        only.

    Raises:
        ValueError: if shapes do not fit, or `kind` is neither.
        TypeError: if an argument is not a tensor of the right kind.

    Source:
        Hartley, "In defense of the eight-point algorithm", IEEE TPAMI 19 (1997); weights as a layer: Ranftl
        and Koltun, "Deep fundamental matrix estimation", ECCV 2018.

    Example:
        >>> import torch, svdrot
        >>> pose = svdrot.se3_exp(torch.tensor([0.1, 0.2, 0.3, 1.0, 0.0, 0.0]).double())
        >>> draw = torch.rand(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> scene = draw + torch.tensor([0.0, 0.0, 3.0])
        >>> a, b = (x[:, :2] / x[:, 2:] for x in (scene, pose.apply(scene)))
        >>> fit = svdrot.epipolar.eight_point(a, b)
        >>> found = svdrot.epipolar.pose_from_essential(fit.matrix, a, b)
        >>> torch.allclose(found.rotation, pose.rotation)
        True
    """
    check_choice("kind", kind, KINDS)
    x, y, w, broken = pairs(a, b, weights, mask)
    given = a.to(torch.promote_types(a.dtype, b.dtype))
    # Of a broken item nothing is computed: eigenvalues of NaN are an error.
    x, y, w = (
        torch.where(broken.reshape(*broken.shape, *[1] * k), 0.0, z) for z, k in ((x, 2), (y, 2), (w, 1))
    )
    total = w.sum(-1, keepdim=True)
    w = w / torch.where(total > 0, total, 1.0)
    x, first = _normalized(x, w)
    y, second = _normalized(y, w)
    rows = (y[..., :, None] * x[..., None, :]).flatten(-2)
    gram = (w[..., None] * rows).mT @ rows
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    gram = gram / torch.where(trace > 0, trace, 1.0)[..., None, None]
    rounding = 32 * torch.finfo(compute_dtype(given)).eps
    found = _least(gram, max(ROUNDING, rounding**2)).unflatten(-1, (3, 3))
    if kind == "fundamental":  # the nearest one in normalized coordinates, as Hartley has it
        found = project_to_rank_two(found)
    found = second.mT @ found @ first
    if kind == "essential":
        found = project_to_essential(found)
    found = found / length(found.flatten(-2))[..., None, None]
    entries = found.detach().flatten(-2)
    negative = (entries.amax(-1) < -entries.amin(-1))[..., None, None]
    spoiled = torch.where(broken, torch.nan, 0.0)[..., None, None]
    found = torch.where(negative, -found, found) + spoiled
    return EpipolarFit(found.to(result_dtype(given)), gram + spoiled)


def _normalized(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return points (x, y, 1) of weighted mean 0 and mean distance sqrt 2, and the matrix that makes them."""
    center = (w[..., None] * x).sum(-2)
    x = x - center[..., None, :]
    spread = (w * length(x)).sum(-1)
    none = spread == 0
    scale = torch.where(none, 1.0, math.sqrt(2) / torch.where(none, 1.0, spread))
    x = torch.cat((scale[..., None, None] * x, torch.ones_like(x[..., :1])), -1)
    one, zero = torch.ones_like(scale), torch.zeros_like(scale)
    shift = -scale[..., None] * center
    entries = (scale, zero, shift[..., 0], zero, scale, shift[..., 1], zero, zero, one)
    return x, torch.stack(entries, -1).unflatten(-1, (3, 3))


def _least(gram: Tensor, noise: float) -> Tensor:
    """Return the unit eigenvector of least eigenvalue, with two derivatives.

    Differences of eigenvalues up to `noise` count as none, fully from twice that on.
    """
    with torch.no_grad():
        values, vectors = torch.linalg.eigh(gram.detach())
        start = vectors[..., 0]
        gaps = (values - values[..., :1]).clamp_min(noise)
        counted = (gaps / noise - 1).clamp(0, 1)
        inverse = (vectors * (counted**2 * (3 - 2 * counted) / gaps)[..., None, :]) @ vectors.mT
    if not torch.compiler.is_compiling() and is_constant((gram,)):
        return start / length(start)[..., None]  # as below, to the last bit
    change, found = gram - gram.detach(), start
    for _ in range(2):
        moved = (change @ found[..., None])[..., 0]
        moved = moved - (start * moved).sum(-1, keepdim=True) * found
        found = start - (inverse @ moved[..., None])[..., 0]
    return found / length(found)[..., None]
