"""The nearest rotation, the nearest orthonormal matrix, and how well defined the former is."""

import math
from types import ModuleType

from torch import Tensor

from svdrot import _autograd
from svdrot._checks import check_matrix, check_square
from svdrot._formulas import plane
from svdrot._formulas import projection as space
from svdrot._precision import compute_dtype, result_dtype
from svdrot._stand_ins import has_arrays, is_symbol, leaf, through
from svdrot._vectors import one_batch


def special_orthogonalize(matrix: Tensor, *, damping: float | None = None) -> Tensor:
    r"""Return the rotation nearest to each matrix in Frobenius norm.

    It is the $R$ in SO(n) that maximizes $\operatorname{tr}(R^\top M)$. With $M = U \operatorname{diag}(s)
    V^\top$ this is $U \operatorname{diag}(1, \dots, 1, \det UV^\top) V^\top$. It depends on neither the scale
    of $M$ nor the sign of its determinant, and commutes with rotations from both sides.

    The gradient is exact for every matrix whose nearest rotation is unique, repeated singular values
    included: it divides by sums $s_i + s_j$, never by differences (the last $s$ has the sign of $\det M$).
    The smallest sum is the gap (`projection_gap`); where it vanishes (rank n - 2, or $\det M < 0$ with equal
    smallest singular values) several rotations are nearest, one of them is returned, on a CPU the same one
    whatever else is in the batch, and the gradient is finite, zero along what is undefined. A sum counts as
    zero while it is rounding: up to 32 units of rounding of the largest entry, fully from 64 on and smoothly
    between ($8 \sqrt n$ and $16 \sqrt n$ units of $s_1$ for n > 3); not one digit of its reciprocal is right
    there. The zero matrix gives the identity and a zero gradient. NaN or infinity in a matrix gives NaN for
    that matrix only.
    Programs recorded by `torch.export`, `torch.jit.trace` or `make_fx` have the same gradients, up to the
    third derivative; the fourth is not finite. Recorded for inference, under `torch.no_grad()` or, by
    `torch.jit.trace`, `torch.inference_mode()`, they are half as long, and their gradient is NaN where the
    gap vanishes, as it is after `run_decompositions`.

    Args:
        matrix: shape (..., n, n), any floating dtype. Half precision is computed in float32 and returned as
            it came; under autocast it is returned in float32.
        damping: pair sums $g$ enter the gradient as $g / (g^2 + d^2)$, with $d$ = `damping` times the size of
            the matrix ($s_1 + s_2 + s_3$ for n = 3, otherwise within a factor $\sqrt 2$ of $s_1$). It bounds
            the gradient by $1 / 2d$ and bends it where the gap is not large against $d$. Default: none, but
            for sums that are rounding, as above.

    Returns:
        Rotations, shape (..., n, n), orthonormal to a few units of rounding.

    Raises:
        ValueError: if the last two dimensions of `matrix` are not equal, or `damping` is not a finite number
            >= 0.
        TypeError: if `matrix` is not a floating-point tensor.

    Source:
        Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31 (1966);
        Umeyama, IEEE TPAMI 13 (1991), lemma. As a network layer: Levinson et al., "An Analysis of SVD for
        Deep Rotation Estimation", NeurIPS 2020, arXiv 2006.14616, SVDO+.

    Example:
        >>> import torch, svdrot
        >>> raw = torch.randn(8, 3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
        >>> rotation = svdrot.special_orthogonalize(raw)
        >>> svdrot.is_rotation(rotation).all()
        tensor(True)
        >>> svdrot.losses.geodesic(rotation, torch.eye(3)).mean().backward()
        >>> raw.grad.isfinite().all()
        tensor(True)
    """
    damping = _checked(damping)
    if formulas := _closed_form(matrix):
        if damping is None:
            return formulas.project(matrix)
        return formulas.project_damped(matrix, scalars=(damping,))
    if is_symbol(matrix):
        return leaf(special_orthogonalize, matrix, damping=damping)
    if has_arrays([matrix]):
        return through(special_orthogonalize, matrix, damping=damping)
    check_square("matrix", matrix)
    return _unbatch(_autograd.special_orthogonalize(_batch(matrix), damping), matrix)


def orthogonalize(matrix: Tensor) -> Tensor:
    r"""Return the nearest matrix with orthonormal columns (m >= n) or rows (m < n).

    It is the orthogonal polar factor $U V^\top$. Reflections are allowed: a square matrix keeps the sign of
    its determinant. Gradients divide by sums $s_i + s_j$ and, for m != n, by $s_i$; they are finite
    everywhere, and exact while the matrix has full rank.

    Args:
        matrix: shape (..., m, n), any floating dtype (half precision as in `special_orthogonalize`).

    Returns:
        Shape (..., m, n). A rank-deficient matrix gives one of its nearest ones, on a CPU the same one
        whatever else is in the batch; NaN or infinity gives NaN in its place.

    Raises:
        ValueError: if `matrix` has fewer than two dimensions, or an empty last one.
        TypeError: if `matrix` is not a floating-point tensor.

    Source:
        Fan and Hoffman, Proc. AMS 6 (1955); Higham, "Functions of Matrices" (2008), theorem 8.4.

    Example:
        >>> import torch, svdrot
        >>> frame = svdrot.orthogonalize(torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]]))
        >>> torch.allclose(frame.mT @ frame, torch.eye(2))
        True
        >>> mirror = svdrot.orthogonalize(torch.diag(torch.tensor([2.0, 3.0, -4.0])))
        >>> round(float(torch.linalg.det(mirror)), 3)
        -1.0
    """
    if formulas := _closed_form(matrix):
        return formulas.project_either(matrix)
    if is_symbol(matrix):
        return leaf(orthogonalize, matrix)
    if has_arrays([matrix]):
        return through(orthogonalize, matrix)
    check_matrix("matrix", matrix)
    rows, columns = matrix.shape[-2:]
    m = _batch(matrix)
    q = _autograd.orthogonalize(m.mT).mT if rows < columns else _autograd.orthogonalize(m)
    return _unbatch(q, matrix)


def projection_gap(matrix: Tensor) -> Tensor:
    """Return how far each matrix is from having two nearest rotations.

    The gap is the smallest sum of two singular values, of which the last carries the sign of the determinant;
    for n = 3 it is $s_2 + s_3$. Moving $M$ by less than half the gap (in spectral norm) cannot make its
    nearest rotation ambiguous; rounding, noise and gradients are amplified by 2 / gap. So
    `projection_gap(m) < tolerance * torch.linalg.matrix_norm(m)` marks what not to trust.

    Args:
        matrix: shape (..., n, n), any floating dtype.

    Returns:
        Shape (...), >= 0 up to rounding, in the units of `matrix`; infinite for n = 1. Differentiable once.
        Where singular values repeat, the gradient is one of the possible ones.

    Raises:
        ValueError: if the last two dimensions of `matrix` are not equal.
        TypeError: if `matrix` is not a floating-point tensor.

    Example:
        >>> import torch, svdrot
        >>> sound, doubtful = torch.eye(3), torch.diag(torch.tensor([1.0, 1.0, -1.0]))
        >>> matrix = torch.stack((sound, doubtful))
        >>> svdrot.projection_gap(matrix) > 1e-3 * torch.linalg.matrix_norm(matrix)
        tensor([ True, False])
    """
    if formulas := _closed_form(matrix):
        return formulas.gap(matrix)
    if is_symbol(matrix):
        return leaf(projection_gap, matrix)
    if has_arrays([matrix]):
        return through(projection_gap, matrix)
    check_square("matrix", matrix)
    gap = _autograd.projection_gap(_batch(matrix))
    return gap.reshape(matrix.shape[:-2]).to(result_dtype(matrix))


def _closed_form(matrix: Tensor) -> ModuleType | None:
    """Return the formulas of 2 x 2 or 3 x 3 matrices, which check what they get; None for other sizes."""
    if not isinstance(matrix, Tensor):
        return None
    sides = matrix.shape[-2:]  # of a tracer, tensors
    return space if sides == (3, 3) else plane if sides == (2, 2) else None


def _batch(matrix: Tensor) -> Tensor:
    """Return matrices as a contiguous batch (B, m, n) in the dtype to compute in."""
    dtype = compute_dtype(matrix)
    m = matrix if matrix.dtype == dtype else matrix.to(dtype)
    return one_batch(m).contiguous()


def _unbatch(r: Tensor, matrix: Tensor) -> Tensor:
    """Return a batch of results in the shape of `matrix` and in the dtype that is due for it."""
    if matrix.ndim != 3:
        r = r.reshape(matrix.shape)
    dtype = result_dtype(matrix)
    return r if r.dtype == dtype else r.to(dtype)


def _checked(damping: float | None) -> float | None:
    if damping is None:
        return None
    if not (isinstance(damping, (int, float)) and 0 <= damping < math.inf):
        raise ValueError(f"`damping` must be a finite number >= 0; got {damping!r}.")
    return float(damping)
