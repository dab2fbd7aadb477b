r"""The orthogonal polar factor: $M = Q H$ with orthonormal $Q$ and symmetric, positive $H$.

`polar` gives the factor, whichever way is fastest. What it takes is public, too: the bare iteration that
optimizers use (`newton_schulz`), the correction that makes a coarse factor exact (`polar_refinement`), the
bound on the error of any factor (`polar_certificate`), and the equation behind every derivative of it
(`lyapunov_skew`).
"""

import torch
from torch import Tensor

from svdrot._autograd import is_seen_through
from svdrot._checks import check_floating, check_matrix, check_square, common_batch
from svdrot._kernels import products
from svdrot._kernels.operations import any_size, iteration
from svdrot._precision import compute_dtype, in_full_precision, no_autocast, result_dtype
from svdrot._rules import backward_rule, batch_first, forward_rule, joined, parted
from svdrot._stand_ins import takes_arrays
from svdrot._vectors import image, one_batch
from svdrot.engine.memory import in_memory
from svdrot.projection import orthogonalize, special_orthogonalize
from svdrot.schedules import TAYLOR, Schedule


@takes_arrays
def polar(matrix: Tensor, *, special: bool = False) -> Tensor:
    """Return the orthogonal polar factor, or with `special` the nearest rotation.

    One name for `orthogonalize(matrix)` and `special_orthogonalize(matrix)`: see there for gradients and for
    what is returned where the factor is not unique. On a CPU, matrices of up to 112 rows (float64: 96) go
    through Newton-Schulz, and those of them that did not converge through a decomposition; on a GPU those of
    every size do, up to 64 rows in one kernel.

    Args:
        matrix: shape (..., m, n), any floating dtype; square if `special`.
        special: whether the determinant must be positive.

    Returns:
        Shape (..., m, n): orthonormal columns (m >= n) or rows.

    Raises:
        ValueError: if the shape of `matrix` is none of these.
        TypeError: if `matrix` is not a floating-point tensor.

    Example:
        >>> import torch, svdrot
        >>> weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
        >>> factor = svdrot.polar.polar(weight)
        >>> torch.allclose(factor.mT @ factor, torch.eye(4), atol=1e-5)
        True
        >>> h = factor.mT @ weight  # symmetric and positive
        >>> torch.allclose(h, h.mT, atol=1e-5), bool((torch.linalg.eigvalsh(h) > 0).all())
        (True, True)
    """
    return special_orthogonalize(matrix) if special else orthogonalize(matrix)


@takes_arrays
def newton_schulz(
    matrix: Tensor, schedule: Schedule, *, dtype: torch.dtype | None = None, schatten: int = 2
) -> Tensor:
    r"""Return $U p(S) V^\top$ for a matrix $U S V^\top$ over one of its norms.

    $p$ is the composition of the polynomials of `schedule`. The iteration takes only products with the Gram
    matrix of the shorter side. How near to orthonormal the result is depends on the schedule and on the
    singular values. Directions of singular value 0 stay 0, so the zero matrix gives the zero matrix.
    Differentiable as any torch operation, at the cost of keeping every step.

    Args:
        matrix: shape (..., m, n), any floating dtype, any scale. It is not changed.
        schedule: the polynomials: one of `svdrot.schedules.SCHEDULES`, or by `newton_schulz_schedule`.
        dtype: of the products. Default: that of `matrix`, but not less than float32. The norm is always taken
            in float32 at least, before any conversion. A CPU without units for half precision (AMX, AVX-512
            BF16) computes in float32 at least, and rounds only the result: more accurate, and faster. So
            does a GPU for up to 64 rows and columns, where a matrix stays in registers.
        schatten: which norm: 2 (Frobenius), or 8, at most $n^{1/8}$ times the largest singular value, taken
            from products that the first step makes anyway. Both are at least the largest singular value, so
            what is divided by them fits any schedule; 8 spares about two steps at n = 2048.

    Returns:
        Shape (..., m, n), in the dtype of `matrix`. NaN or infinity in a matrix gives NaN for that matrix.

    Raises:
        ValueError: if `matrix` has fewer than two dimensions, `schedule` has no step or one of fewer than two
            coefficients, or `schatten` is neither 2 nor 8.
        TypeError: if `matrix` is not a floating-point tensor.

    Example:
        >>> import torch, svdrot
        >>> gradient = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
        >>> update = svdrot.polar.newton_schulz(gradient, svdrot.schedules.SCHEDULES["polar_express"])
        >>> torch.allclose(update.mT @ update, torch.eye(8), atol=1e-4)
        True
    """
    check_matrix("matrix", matrix)
    check_steps(schedule, schatten)
    x = one_batch(matrix).to(compute_dtype(matrix))
    asked = dtype or x.dtype
    if schatten == 2 and asked != torch.float64 and products.iterates(x, schedule):
        x = products.iterate(x, schedule)
    elif schatten == 2 and asked != torch.float64 and products.pulls_back(x, schedule):
        x = _Iterated.apply(x, schedule)
    else:
        with no_autocast(x):
            x = _iterated(x, schedule, x.dtype if iteration.is_faster_in_full(x, asked) else asked, schatten)
    return x.to(asked).to(matrix.dtype).reshape(matrix.shape)


def check_steps(schedule: Schedule, schatten: int) -> None:
    """Check the arguments `schedule` and `schatten` of `newton_schulz`.

    Args:
        schedule: a tuple or list of steps, each of at least two coefficients.
        schatten: 2 or 8.

    Raises:
        ValueError: if `schedule` has no step or one of fewer than two coefficients, or `schatten` is neither
            2 nor 8.

    Example:
        >>> import svdrot
        >>> svdrot.polar.check_steps(svdrot.schedules.YOU, schatten=2)
        >>> svdrot.polar.check_steps(((1.5,),), schatten=2)
        Traceback (most recent call last):
        ValueError: `schedule` must be a tuple of steps of at least two coefficients; got ((1.5,),).
    """
    steps = [*schedule] if isinstance(schedule, (tuple, list)) else []
    if not steps or not all(isinstance(step, (tuple, list)) and len(step) >= 2 for step in steps):
        raise ValueError(
            f"`schedule` must be a tuple of steps of at least two coefficients; got {schedule!r}."
        )
    if schatten not in (2, 8):
        raise ValueError(f"`schatten` must be 2 or 8; got {schatten!r}.")


class _Iterated(torch.autograd.Function):
    """The iteration by one kernel each way. Whoever differentiates twice goes through all products."""

    @staticmethod
    def forward(x, schedule):
        return products.iterate(x, schedule)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.schedule = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        twice = torch.is_grad_enabled()
        if not is_seen_through(g) and in_memory(g):
            return products.pull_back(x, ctx.schedule, g), None
        with torch.enable_grad(), no_autocast(x):
            y = _iterated(x, ctx.schedule, x.dtype, 2)
        return torch.autograd.grad(y, x, g, create_graph=twice)[0], None


def _iterated(x: Tensor, schedule: Schedule, dtype: torch.dtype, schatten: int) -> Tensor:
    """Return the matrices (B, m, n) over their norm after all steps, in plain products in `dtype`."""
    x = iteration.over_frobenius(x).to(dtype)
    if schatten == 8:
        x, schedule = iteration.first_step(x, schedule[0]), schedule[1:]
    if iteration.is_in_place(x):
        for step in schedule:
            iteration.step_in_place(x, step)
        return x
    one = iteration.eye(min(x.shape[-2:]), x)
    for step in schedule:
        x = iteration.step(x, step, one)
    return x


@takes_arrays
def polar_refinement(matrix: Tensor, factor: Tensor) -> Tensor:
    r"""Return a factor after one Newton correction, which takes an error of e to one of the order of e³.

    Iterating further makes a coarse factor orthonormal, but never the right one: the error that is left is a
    rotation $Q^\top Q^*$, which shows in the skew part of $Q^\top M$ and nowhere else. The correction is read
    from that part. It makes a factor in bfloat16 one in float32: for Gaussian matrices of up to 64 columns
    the median error is 2e-6. What is left is e³ over the square of the smallest singular values, not
    rounding, so larger and ill-conditioned matrices need the correction twice.

    Args:
        matrix: shape (..., m, n), any floating dtype, of full rank.
        factor: shape (..., m, n), an approximate polar factor, orthonormal to within 0.3; for square
            matrices it may be that of the nearest rotation.

    Returns:
        Shape (..., m, n), in the dtype of `matrix`.

    Raises:
        ValueError: if the shapes differ or have fewer than two dimensions.
        TypeError: if an argument is not a floating-point tensor.

    Source:
        Differentiate $Q^\top M = M^\top Q$ along Q; see `lyapunov_skew`.

    Example:
        >>> import torch, svdrot
        >>> matrix = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
        >>> coarse = svdrot.orthogonalize(matrix).bfloat16().float()
        >>> fine = svdrot.polar.polar_refinement(matrix, coarse)
        >>> error = [torch.linalg.matrix_norm(x - svdrot.orthogonalize(matrix)) for x in (coarse, fine)]
        >>> bool(error[0] > 1e-3), bool(error[1] < 1e-5)
        (True, True)
    """
    q = _refined(*_pair(matrix, factor))
    q = q.mT if matrix.shape[-2] < matrix.shape[-1] else q
    return q.to(result_dtype(matrix)).reshape(matrix.shape)


@in_full_precision
def _refined(m: Tensor, q: Tensor) -> Tensor:
    """Return the corrected factor of tall matrices, after two steps that make `q` orthonormal."""
    one = iteration.eye(q.shape[-1], q)
    for _ in range(2):
        q = iteration.step(q, TAYLOR, one)
    # With QᵀM = S + K (symmetric and skew), W = (I - QQᵀ) M and the factor Q + Q X + Y, orthonormalized, M is
    # its product with a symmetric matrix up to third order if
    #     S X + X S = 2 K + (BᵀW - WᵀB) / 2,    Y = B + (B X S - W X) S⁻¹ / 2,    B = W S⁻¹.
    a = q.mT @ m
    s, skew = (a + a.mT) / 2, a - a.mT
    if m.shape[-2] == m.shape[-1]:
        correction = q @ lyapunov_skew(s, skew)
    else:
        factor, _ = torch.linalg.cholesky_ex(s)
        w = m - q @ a
        b = torch.cholesky_solve(w.mT, factor).mT
        bent = b.mT @ w
        x = lyapunov_skew(s, skew + (bent - bent.mT) / 2)
        correction = q @ x + b + (b @ x - torch.cholesky_solve((w @ x).mT, factor).mT) / 2
    return iteration.step(q + correction, TAYLOR, one)


@takes_arrays
def polar_certificate(matrix: Tensor, factor: Tensor, *, special: bool = False) -> Tensor:
    r"""Return a bound on the distance, in Frobenius norm, of a factor from the polar factor of the matrix.

    With $Q_1$ the orthonormal matrix next to $Q$, $Q_1^\top M = S + K$ (symmetric and skew), the polar factor
    of $Q_1 S$ is $Q_1$ if $S > 0$, and on the way from $Q_1 S$ to $M$ the smallest singular values stay above
    the smallest eigenvalues of $S$ (Fan and Hoffman). So $|Q - Q^*| \le |Q - Q_1| + |K - K^\top| /
    (\lambda_n + \lambda_{n - 1})$; for m > n, the second term is $|M - Q_1 S| / \lambda_n$. Orthonormality
    alone bounds nothing. The bound is computed in float64 and includes the rounding of that.

    Args:
        matrix: shape (..., m, n), any floating dtype.
        factor: shape (..., m, n), any matrix; a good one is orthonormal to within 0.3.
        special: whether to bound the distance from the nearest rotation (square matrices), for which
            $\lambda_n$ may be negative.

    Returns:
        Bounds, shape (...), float64, at least 0. Infinite where nothing is certain: `factor` is far from
        orthonormal, several matrices are nearest, or a number is not finite. Not differentiable.

    Raises:
        ValueError: if the shapes differ, have fewer than two dimensions, or are not square and `special`.
        TypeError: if an argument is not a floating-point tensor.

    Source:
        Derivative of the polar factor: Mathias, SIAM J. Matrix Anal. Appl. 14 (1993). Eigenvalues of the
        symmetric part: Fan and Hoffman, Proc. AMS 6 (1955).

    Example:
        >>> import torch, svdrot
        >>> matrix = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
        >>> svdrot.polar.polar_certificate(matrix, svdrot.orthogonalize(matrix)) < 1e-5
        tensor(True)
        >>> wrong = torch.eye(16, 8)  # orthonormal, but not the polar factor
        >>> svdrot.polar.polar_certificate(matrix, wrong)
        tensor(inf, dtype=torch.float64)
    """
    if special:
        check_square("matrix", matrix)
    check_floating("matrix", matrix)
    check_floating("factor", factor)
    with torch.no_grad():
        return _certificate(*_pair(matrix.double(), factor.double()), special).reshape(matrix.shape[:-2])


@takes_arrays
def lyapunov_skew(h: Tensor, s: Tensor) -> Tensor:
    r"""Return the skew X with H X + X H = S, for symmetric H and skew S.

    Every derivative of a polar factor solves this equation, and so does its correction. In eigenvectors of H,
    X is S divided by sums $\lambda_i + \lambda_j$, i < j, and needs only these to be positive: H may have one
    negative eigenvalue, as it does for a nearest rotation where the determinant is negative.

    The method depends on n. For n = 3 it is a closed form; up to n = 8, conjugate gradients on skew matrices,
    which end after n (n - 1) / 2 products. Beyond that it takes eigenvectors on a CPU, where they are faster,
    and on a GPU the sign of [[H, S], [0, -H]] by Newton-Schulz, with eigenvectors where that does not
    converge: H is not positive, or its condition is above some thousands. Differentiable any number of times,
    by equations of the same kind.

    Args:
        h: shape (..., n, n), any floating dtype (half precision is computed in float32); its symmetric part
            is taken.
        s: shape (..., n, n); its skew part is taken. Batch dimensions broadcast.

    Returns:
        Shape (..., n, n). Where a sum vanishes, X is finite along all others, or large.

    Raises:
        ValueError: if the last two dimensions are not equal, or differ between `h` and `s`.
        TypeError: if an argument is not a floating-point tensor.

    Source:
        Higham, "Functions of Matrices" (2008), section 8.3; for n = 3, $X = [x]_\times$ with
        $(\operatorname{tr}(H) I - H) x = \operatorname{vee}(S)$.

    Example:
        >>> import torch, svdrot
        >>> h = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> s = torch.tensor([[0.0, 6.0], [-6.0, 0.0]])
        >>> x = svdrot.polar.lyapunov_skew(h, s)
        >>> torch.allclose(h @ x + x @ h, s)
        True
    """
    check_square("h", h)
    check_square("s", s)
    if h.shape[-1] != s.shape[-1]:
        raise ValueError(f"`h` and `s` must have equal sides; got {tuple(h.shape)} and {tuple(s.shape)}.")
    dtype, n = torch.promote_types(h.dtype, s.dtype), h.shape[-1]
    if h.shape != s.shape:
        batch = common_batch(h=h.shape[:-2], s=s.shape[:-2])
        h, s = h.expand(*batch, n, n), s.expand(*batch, n, n)
    shape = h.shape
    h, s = (one_batch(x.to(compute_dtype(x.to(dtype)))) for x in (h, s))
    return _lyapunov_skew((h + h.mT) / 2, (s - s.mT) / 2).reshape(shape).to(dtype)


def _pair(matrix: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as batches of tall matrices, (B, m, n) with m >= n, in a dtype to compute in."""
    check_matrix("matrix", matrix)
    check_matrix("factor", factor)
    if matrix.shape != factor.shape:
        shapes = f"{tuple(matrix.shape)} and {tuple(factor.shape)}"
        raise ValueError(f"`factor` must have the shape of `matrix`; got {shapes}.")
    m, q = (one_batch(x.to(compute_dtype(matrix))) for x in (matrix, factor))
    return (m.mT, q.mT) if m.shape[-2] < m.shape[-1] else (m, q)


def _certificate(m: Tensor, q: Tensor, special: bool) -> Tensor:
    """Return the bound for batches of tall matrices in float64, infinite where it does not hold."""
    rows, n = m.shape[-2:]
    ok = (m.isfinite() & q.isfinite()).all(-1).all(-1)
    m, q = (torch.where(ok[:, None, None], x, 0) for x in (m, q))
    largest = m.abs().amax((-2, -1), keepdim=True)
    m = m / torch.where(largest > 0, largest, 1)
    one = iteration.eye(n, q)
    ok &= _norm(q.mT @ q - one) < 0.5
    near = q
    for _ in range(4):
        near = iteration.step(near, TAYLOR, one)
    h = near.mT @ m
    symmetric = (h + h.mT) / 2
    eigenvalues = torch.linalg.eigvalsh(torch.where(ok[:, None, None], symmetric, 0))
    rounding = 8 * rows * torch.finfo(m.dtype).eps * _norm(m)
    if rows > n:
        error, sums = _norm(m - near @ symmetric), eigenvalues[:, 0]
    else:
        error = _norm(h - h.mT)
        sums = eigenvalues[:, 0] + eigenvalues[:, 1] if n > 1 else 2 * eigenvalues[:, 0].abs()
        if special:  # with a negative eigenvalue the sums may shrink on the way, by twice the norm of K
            ok &= torch.linalg.slogdet(near).sign > 0
            sums = sums - torch.where(eigenvalues[:, 0] < 0, error / 2**0.5, 0)
    ok &= (sums > 2 * rounding) & ((eigenvalues[:, 0] > rounding) | special)
    bound = _norm(q - near) + (error + rounding) / (sums - rounding)
    return torch.where(ok, bound, torch.inf)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=(-2, -1))


def _lyapunov_skew(h: Tensor, s: Tensor) -> Tensor:
    return (_Lyapunov if torch.compiler.is_compiling() else _LyapunovWithJvp).apply(h, s)


class _Lyapunov(torch.autograd.Function):
    """Solve for X of (H, S), in batches.

    dX = L⁻¹(dS - dH X - X dH), L X = H X + X H, and L⁻¹ is its own adjoint.
    """

    @staticmethod
    def forward(h, s):
        n = h.shape[-1]
        if n == 3:
            return _closed_form(h, s)
        if n <= 8:
            return _conjugate_gradients(h, s)
        x = any_size.solve(h, s, torch.finfo(h.dtype).eps)
        return (x - x.mT) / 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    @backward_rule
    def backward(ctx, g):
        h, x = ctx.saved_tensors
        y = _lyapunov_skew(h, (g - g.mT) / 2)
        return _anticommutator(y, x), y

    @staticmethod
    def vmap(info, in_dims, h, s):
        """One more batch dimension is one more batch."""
        h, s = batch_first(info, in_dims, h, s)
        return parted(_lyapunov_skew(joined(h), joined(s)), *h.shape[:2]), 0


class _LyapunovWithJvp(_Lyapunov):
    @staticmethod
    @forward_rule
    def jvp(ctx, saved, th, ts):
        h, x = saved
        return _lyapunov_skew(h, ts - _anticommutator(th, x))


@in_full_precision
def _anticommutator(a: Tensor, b: Tensor) -> Tensor:
    return a @ b + b @ a


def _closed_form(h: Tensor, s: Tensor) -> Tensor:
    """Return x = adj(K) vee(S) / det K for K = tr(H) I - H, both over their sizes: K³ may not be a number."""
    size = h.abs().amax((-2, -1), keepdim=True)
    h = h / torch.where(size > 0, size, 1)
    a, b, c = (h.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] * iteration.eye(3, h) - h).unbind(-1)
    bc, ca, ab = torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)
    determinant = (a * bc).sum(-1, keepdim=True)
    vector = torch.stack((s[:, 2, 1], s[:, 0, 2], s[:, 1, 0]), -1)
    x = image(torch.stack((bc, ca, ab), -1), vector)
    scale = determinant * torch.where(size > 0, size, 1)[:, 0]
    x, y, z = torch.where(scale != 0, x / torch.where(scale != 0, scale, 1), 0).unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).reshape(h.shape)


@in_full_precision
def _conjugate_gradients(h: Tensor, s: Tensor) -> Tensor:
    """Return X for small n. For P skew, H P + P H is H P less its transpose: one product for each step."""
    sizes = [x.abs().amax((-2, -1), keepdim=True) for x in (h, s)]
    of_h, of_s = (torch.where(size > 0, size, 1) for size in sizes)
    h, residual = h / of_h, s / of_s
    x, direction = torch.zeros_like(s), residual
    square = (residual * residual).sum((-2, -1), keepdim=True)
    for _ in range(
        h.shape[-1] * (h.shape[-1] + 1) // 2
    ):  # as many as there are dimensions, and some for rounding
        image = h @ direction
        image = image - image.mT
        curvature = (direction * image).sum((-2, -1), keepdim=True)
        length = torch.where(curvature > 0, square / torch.where(curvature > 0, curvature, 1), 0)
        x, residual = x + length * direction, residual - length * image
        before, square = square, (residual * residual).sum((-2, -1), keepdim=True)
        turn = torch.where(before > 0, square / torch.where(before > 0, before, 1), 0)
        direction = residual + turn * direction
    return x * (of_s / of_h)
