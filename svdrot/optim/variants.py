"""Relatives of Muon, which differ from it in their direction."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from svdrot._checks import check_matrix
from svdrot._precision import compute_dtype
from svdrot.schedules import Schedule, newton_schulz_schedule

from .hooks import Stack, update_only
from .muon import Muon


class MuonEq(Muon):
    r"""Step as Muon does, with momenta whose rows, columns, or both are `equilibrate`d first.

    That makes them better conditioned, and another direction: it is not the polar factor of the momentum. The
    authors keep the momentum $\sum \mu^k G$ and orthogonalize $G + \mu M$; Muon's, which is kept here, is
    that times $1 - \mu$, which the normalization takes away again.

    Args:
        params: parameters or groups of them, as for `Muon`.
        lr: learning rate.
        mode: "r" (the authors' default), "c" or "rc".
        options: of `Muon`. The step size is theirs, 0.2 sqrt(max(m, n)).

    Raises:
        ValueError: if `mode` is not one of the three; else as `Muon`.
        TypeError: as `Muon`.

    Source: "MuonEq", arXiv 2603.28254.

    Example:
        >>> import torch
        >>> from svdrot.optim import MuonEq
        >>> MuonEq([torch.nn.Parameter(torch.zeros(4, 3))], mode="rc").param_groups[0]["mode"]
        'rc'
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-3, *, mode: str = "r", **options: Any):
        options.setdefault("adjust_lr_fn", "match_rms_adamw")
        super().__init__(params, lr, extra={"mode": mode}, **options)

    def check_options(self, group: dict[str, Any]) -> None:
        """Raise a ValueError if `mode` is unknown."""
        _check_mode(group["mode"])

    @update_only
    def direction(self, update: Tensor, stack: Stack) -> Tensor:
        """Gives Muon's direction of the equilibrated update."""
        return super().direction(equilibrate(update, stack.group["mode"]), stack)


class MiMuon(Muon):
    r"""Step as Muon where singular values of a momentum are `tau` or more apart, else along the momentum.

    The momentum step has no step size but the learning rate. For `tau=0` this is Muon, for infinity gradient
    descent with momentum. The authors' beta multiplies the new gradient: `momentum` is 1 - beta.

    Args:
        params: parameters or groups of them, as for `Muon`.
        lr: learning rate.
        tau: smallest `singular_gap` of a momentum to orthogonalize. No default, for it has the unit of the
            gradients, and gaps shrink with the size: of Gaussian matrices of norm 1, the median is 3e-2 for
            8x8 and 1e-4 for 128x128.
        relative: whether `tau` is in units of the largest singular value instead.
        options: of `Muon`. No Nesterov momentum unless asked for.

    Raises:
        ValueError: if `tau` is negative or NaN; else as `Muon`.
        TypeError: as `Muon`.

    Source: Huang, Luo, Chen, "MiMuon", arXiv 2605.19619.

    Example:
        >>> import torch
        >>> from svdrot.optim import MiMuon
        >>> MiMuon([torch.nn.Parameter(torch.zeros(4, 3))], tau=1e-4).param_groups[0]["nesterov"]
        False
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        *,
        tau: float,
        relative: bool = False,
        **options: Any,
    ):
        options.setdefault("nesterov", False)
        super().__init__(params, lr, extra={"tau": tau, "relative": relative}, **options)

    def check_options(self, group: dict[str, Any]) -> None:
        """Raise a ValueError if `tau` is negative or NaN."""
        if not group["tau"] >= 0:
            raise ValueError(f"`tau` must not be negative; got {group['tau']}.")

    @update_only
    def direction(self, update: Tensor, stack: Stack) -> Tensor:
        """Gives Muon's direction where the gap is wide, and the update elsewhere."""
        wide = singular_gap(update, stack.group["relative"]) >= stack.group["tau"]
        return torch.where(wide[:, None, None], super().direction(update, stack), update)


def shape_schedule(rows: int, columns: int) -> Schedule:
    """Generates a convergent schedule for matrices of this shape with independent entries.

    It is short because it takes the law of Marchenko and Pastur for granted. Momenta that have a few large
    singular values (an outlier, low rank) come out of it worse than of any published schedule: the others are
    below its lower end.

    Args:
        rows: m, at least 1.
        columns: n, at least 1.

    Returns:
        A schedule for `newton_schulz`; the further from square, the fewer steps.

    Raises:
        ValueError: if `rows` or `columns` is less than 1.

    Example:
        >>> from svdrot.optim import shape_schedule
        >>> len(shape_schedule(8, 512)) < len(shape_schedule(8, 8))
        True
    """
    if not (rows >= 1 and columns >= 1):
        raise ValueError(f"`rows` and `columns` must be at least 1; got {rows} and {columns}.")
    longer, shorter = max(rows, columns), min(rows, columns)
    return newton_schulz_schedule(1e-3, safety=1.01, tolerance=1e-3, aspect=longer / shorter)


ANY_SPECTRUM = newton_schulz_schedule(1e-3, safety=1.01, tolerance=1e-3)  # seven steps


class ROOT(Muon):
    """Step as Muon does, with momenta whose outliers are clipped, and with a schedule for each shape.

    In place of the authors' table of four shapes, a generated schedule serves all: it converges from 1e-3 of
    the norm on, whatever the spectrum. `shape_schedule` is shorter, for random matrices.

    Args:
        params: parameters or groups of them, as for `Muon`.
        lr: learning rate.
        quantile: see `clip_outliers`, also for what the authors' 0.9 costs without outliers; 1 clips nothing.
        schedule, schatten: as for `Muon`; a function of rows and columns gives one to each shape. The norm is
            the tighter one by default.
        options: of `Muon`. The step size is theirs, 0.2 sqrt(max(m, n)).

    Raises:
        ValueError: if `quantile` is not in (0, 1]; else as `Muon`.
        TypeError: as `Muon`.

    Source: "ROOT", arXiv 2511.20626.

    Example:
        >>> import torch
        >>> from svdrot.optim import ROOT
        >>> ROOT([torch.nn.Parameter(torch.zeros(4, 3))], quantile=0.99).param_groups[0]["schatten"]
        8
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        *,
        quantile: float = 0.9,
        schedule: Schedule | Callable[[int, int], Schedule] = ANY_SPECTRUM,
        schatten: int = 8,
        **options: Any,
    ):
        options.setdefault("adjust_lr_fn", "match_rms_adamw")
        options |= {"schedule": schedule, "schatten": schatten}
        super().__init__(params, lr, extra={"quantile": quantile}, **options)

    def check_options(self, group: dict[str, Any]) -> None:
        """Raise a ValueError if `quantile` is out of range."""
        _check_quantile(group["quantile"])

    @update_only
    def direction(self, update: Tensor, stack: Stack) -> Tensor:
        """Gives Muon's direction of the clipped update."""
        return super().direction(clip_outliers(update, stack.group["quantile"]), stack)


EQUILIBRATED = {"r": (-1,), "c": (-2,), "rc": (-1, -2)}  # axes of the sums of squares


def equilibrate(matrix: Tensor, mode: str, eps: float = 1e-8) -> Tensor:
    r"""Scales the rows of a matrix to norm 1, or its columns, or both by half.

    That is $r_i^{-1/2} x_{ij}$, $x_{ij} c_j^{-1/2}$ or $r_i^{-1/2} x_{ij} c_j^{-1/2}$ for the sums r and c of
    the squares in a row and in a column of $x$.

    Args:
        matrix: shape (..., m, n), any scale.
        mode: "r", "c" or "rc". Both sums of "rc" are of the matrix that comes in.
        eps: what is added to each sum, in units of the mean sum, so that rows of rounding errors stay small.

    Returns:
        Shape (..., m, n): rows of norm 1 ("r"), columns of norm 1 ("c"), or ("rc") the above of the matrix
        over its largest entry. Zero rows and columns stay zero.

    Raises:
        ValueError: if `matrix` is not (..., m, n), or `mode` not one of the three.
        TypeError: if `matrix` is not floating point.

    Source: "MuonEq", arXiv 2603.28254.

    Example:
        >>> import torch
        >>> from svdrot.optim import equilibrate
        >>> equilibrate(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), "r", eps=0)
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    check_matrix("matrix", matrix)
    _check_mode(mode)
    x = matrix.to(compute_dtype(matrix))
    x = x / _one_for_zero(x.abs().amax((-2, -1), keepdim=True))
    result = x
    for axis in EQUILIBRATED[mode]:
        sums = x.square().sum(axis, keepdim=True)
        result = result * _one_for_zero(sums + eps * sums.mean((-2, -1), keepdim=True)).rsqrt()
    return result.to(matrix.dtype)


def _check_mode(mode: str) -> None:
    if mode not in EQUILIBRATED:
        raise ValueError(f"`mode` must be one of {', '.join(map(repr, EQUILIBRATED))}; got {mode!r}.")


def clip_outliers(matrix: Tensor, quantile: float) -> Tensor:
    """Clamps the entries of a matrix to [-q, q], q the quantile of their absolute values.

    It pays where some entries are wrong by much, and costs where none is. Cosines of the polar factor with
    that of the clean matrix, 128x256 of rank 8 and noise, of which a part of the entries is hit:

        quantile   none   0.1%   0.3%     1%
               1   1.00   0.76   0.50   0.12
            0.99   0.98   0.94   0.85   0.53
             0.9   0.87   0.85   0.83   0.73

    Args:
        matrix: shape (..., m, n). Each matrix has its own q.
        quantile: fraction in (0, 1] of the entries that stay as they are; the next larger count of entries.

    Returns:
        Shape (..., m, n), in the dtype of `matrix`.

    Raises:
        ValueError: if `matrix` is not (..., m, n), or `quantile` not in (0, 1].
        TypeError: if `matrix` is not floating point.

    Source: "ROOT", arXiv 2511.20626.

    Example:
        >>> import torch
        >>> from svdrot.optim import clip_outliers
        >>> clip_outliers(torch.tensor([[1.0, -2.0], [3.0, 100.0]]), 0.75)
        tensor([[ 1., -2.],
                [ 3.,  3.]])
    """
    check_matrix("matrix", matrix)
    _check_quantile(quantile)
    size = matrix.abs().flatten(-2)
    limit = size.kthvalue(math.ceil(quantile * size.shape[-1])).values[..., None, None]
    return matrix.clamp(-limit, limit)


def _check_quantile(quantile: float) -> None:
    if not 0 < quantile <= 1:
        raise ValueError(f"`quantile` must be in (0, 1]; got {quantile}.")


def _one_for_zero(value: Tensor) -> Tensor:
    return torch.where(value == 0, 1, value)


def singular_gap(matrix: Tensor, relative: bool = False) -> Tensor:
    r"""Computes the smallest difference between two singular values of a matrix that are not zero.

    It comes from the eigenvalues of the Gram matrix of the shorter side, in float64, which resolves
    differences of 1e-15 between large singular values, and 1e-8 between small ones, of the largest.

    Args:
        matrix: shape (..., m, n), any scale.
        relative: whether to divide by the largest singular value.

    Returns:
        Shape (...), in the dtype of `matrix`; infinity where fewer than two singular values are not zero up
        to rounding, NaN for a matrix that is not finite.

    Raises:
        ValueError: if `matrix` is not (..., m, n).
        TypeError: if `matrix` is not floating point.

    Example:
        >>> import torch
        >>> from svdrot.optim import singular_gap
        >>> singular_gap(torch.diag(torch.tensor([3.0, 2.5, 1.0])))
        tensor(0.5000)
    """
    check_matrix("matrix", matrix)
    m, n = matrix.shape[-2:]
    x = matrix.double() if m >= n else matrix.double().mT
    finite = x.isfinite().all(-1).all(-1)
    x = torch.where(finite[..., None, None], x, 0)  # LAPACK refuses all for one
    largest = _one_for_zero(x.abs().amax((-2, -1), keepdim=True))
    x = x / largest
    squares = torch.linalg.eigvalsh(x.mT @ x)  # ascending
    some = squares > 0
    s = torch.where(some, torch.where(some, squares, 1).sqrt(), 0)  # with a finite gradient
    # As torch.linalg.matrix_rank has it, but not below the root of what rounding does to the Gram matrix.
    zero = max(max(m, n) * torch.finfo(matrix.dtype).eps, math.sqrt(min(m, n) * torch.finfo(x.dtype).eps))
    differences = torch.where(s[..., :-1] > zero * s[..., -1:], s.diff(), torch.inf)
    gap = pad(differences, (0, 1), value=torch.inf).amin(-1)
    scale = 1 / _one_for_zero(s[..., -1]) if relative else largest[..., 0, 0]
    two = gap.isfinite()
    gap = torch.where(two, torch.where(two, gap, 0) * scale, torch.inf)
    return torch.where(finite, gap, torch.nan).to(matrix.dtype)
