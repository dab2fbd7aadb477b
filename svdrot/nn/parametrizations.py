r"""Weights that stay orthonormal while they are trained, by `torch.nn.utils.parametrize`.

The weight is the polar factor of a free matrix, W = polar(M), the orthonormal matrix nearest to it. Two
things make this fast and its steps those of Riemannian optimization:

* Where a gradient may be asked for, M itself becomes W, which changes nothing of what is seen, for the factor
  of W is W. So the next M is one step away from an orthonormal matrix, whose factor takes two to five
  products (`svdrot._kernels.operations.nearby`), and no decomposition.
* The derivative of the polar factor at an orthonormal matrix is the projection to the tangent space,
  dM - W (WᵀdM + dMᵀW) / 2: two products, and no equation to be solved.

An optimizer that puts M back, as the line search of LBFGS does, finds the weight back, since nothing but M
tells what the weight is. Weight decay, which shrinks M, does nothing at all.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize

from svdrot._checks import check_matrix, check_square
from svdrot._formulas.geometry import steps
from svdrot._kernels.operations import any_size, nearby
from svdrot._precision import compute_dtype, in_full_precision, result_dtype
from svdrot._rules import is_legacy_batch
from svdrot._vectors import one_batch
from svdrot.engine.memory import is_exporting
from svdrot.projection import orthogonalize, special_orthogonalize

from .projection import NoRotationError, check_rotations

FULL = (torch.float32, torch.float64)


class Stiefel(nn.Module):
    r"""Keep a weight orthonormal while it is trained: its columns, or of a wide one its rows.

    For `torch.nn.utils.parametrize`, and see `orthogonal`. The weight is the polar factor of the free matrix,
    which is written to: each training forward makes it the weight, as the file says in its first lines. That
    is done to an `nn.Parameter` alone, and only where a gradient may be asked for; anything else goes through
    `svdrot.orthogonalize`, as everything does under `torch.func`, in exports and traces.

    Shape:
        (..., m, n) -> orthonormal columns (m >= n) or rows, (..., m, n), to some units of rounding of the
        root of n. A square weight keeps the sign of its determinant, as long as no step is longer than 1.

    Source:
        Absil, Mahony and Sepulchre, "Optimization Algorithms on Matrix Manifolds" (2008), section 4.1.1, for
        the retraction, and 3.6.1 for the projection.

    Example:
        >>> import torch, svdrot
        >>> from torch.nn.utils.parametrize import register_parametrization
        >>> layer = register_parametrization(torch.nn.Linear(6, 4), "weight", svdrot.nn.Stiefel())
        >>> torch.allclose(layer.weight @ layer.weight.mT, torch.eye(4), atol=1e-6)
        True
    """

    def forward(self, matrix: Tensor) -> Tensor:
        """Return the orthonormal matrix nearest to each matrix, and make a free parameter that matrix.

        Args:
            matrix: shape (..., m, n), floating point.

        Returns:
            Shape (..., m, n).

        Raises:
            ValueError: if `matrix` has fewer than two dimensions, or an empty last one.
            TypeError: if `matrix` is not a floating-point tensor.
        """
        check_matrix("matrix", matrix)
        return _kept(matrix)

    def right_inverse(self, value: Tensor) -> Tensor:
        r"""Return a matrix whose polar factor is `value`: a copy of it, if it is orthonormal.

        What is not is refused, for the weight would not become what was assigned. On registration torch takes
        that refusal for "no inverse": the weight stays as the free matrix, and is seen as its polar factor.

        Args:
            value: shape (..., m, n): every entry of $Q^\top Q - I$, or $Q Q^\top - I$ of a wide one, within
                10 max(m, n) eps of 0.

        Returns:
            A copy of `value`.

        Raises:
            ValueError: if `value` is no matrix, or not orthonormal.
            TypeError: if `value` is not a floating-point tensor.

        Example:
            >>> import torch, svdrot
            >>> frame = torch.eye(4)[:, :2]
            >>> torch.equal(svdrot.nn.Stiefel().right_inverse(frame), frame)
            True
        """
        check_matrix("value", value)
        if not value.is_meta:
            _check_orthonormal("value", value)
        return value.detach().clone()


class SpecialOrthogonal(nn.Module):
    r"""Keep a square weight a rotation, of determinant 1, while it is trained.

    As `Stiefel`, for rotations: the weight is the rotation nearest to the free matrix, whatever the sign of
    its determinant. That sign is known without an elimination where the last training forward, whose result
    is kept, was less than 1 away. (`SpecialOrthogonalize` is the same map, leaves the free matrix alone, and
    so costs a decomposition or a whole iteration, and an equation for the gradient.)

    Shape:
        (..., n, n) -> rotations (..., n, n), to some units of rounding of the root of n.

    Source:
        As `Stiefel`, and `svdrot.special_orthogonalize`.

    Example:
        >>> import torch, svdrot
        >>> from torch.nn.utils.parametrize import register_parametrization
        >>> layer = torch.nn.Linear(4, 4)
        >>> layer = register_parametrization(layer, "weight", svdrot.nn.SpecialOrthogonal())
        >>> round(torch.linalg.det(layer.weight).item(), 5)
        1.0
    """

    def __init__(self):
        super().__init__()
        self._last: _Last = _Last()

    def forward(self, matrix: Tensor) -> Tensor:
        """Return the rotation nearest to each matrix, and make a free parameter that rotation.

        Args:
            matrix: shape (..., n, n), floating point.

        Returns:
            Shape (..., n, n).

        Raises:
            ValueError: if the last two dimensions are not equal.
            TypeError: if `matrix` is not a floating-point tensor.
        """
        check_square("matrix", matrix)
        return _kept(matrix, self._last)

    def right_inverse(self, value: Tensor) -> Tensor:
        r"""Return a matrix whose nearest rotation is `value`: a copy of it, if it is a rotation.

        What is no rotation, a reflection for one, is refused; on registration as by `Stiefel.right_inverse`.

        Args:
            value: rotations, shape (..., n, n): every entry of $R^\top R - I$ within 10 n eps of 0, and
                $\det R > 0$.

        Returns:
            A copy of `value`.

        Raises:
            ValueError: if the last two dimensions are not equal, or a matrix is no rotation.
            TypeError: if `value` is not a floating-point tensor.

        Example:
            >>> import torch, svdrot
            >>> torch.equal(svdrot.nn.SpecialOrthogonal().right_inverse(torch.eye(4)), torch.eye(4))
            True
        """
        check_square("value", value)
        if not value.is_meta:
            check_rotations("value", value)
        return value.detach().clone()


def orthogonal(module: nn.Module, name: str = "weight", *, special: bool = False) -> nn.Module:
    """Keep a weight of a module orthonormal: register `Stiefel`, or with `special` `SpecialOrthogonal`.

    In the manner of `torch.nn.utils.parametrizations.orthogonal`, which see for what differs: there a weight
    that is not orthonormal is made so by QR, here it becomes the nearest that is.

    Args:
        module: that has the weight.
        name: of a parameter of it, (..., m, n).
        special: whether the determinant must be 1; the weight is then square.

    Returns:
        The module, changed.

    Raises:
        ValueError: if there is no such parameter, it is no matrix, or not square and `special`.
        TypeError: if it is not floating point.

    Example:
        >>> import torch, svdrot
        >>> layer = svdrot.nn.orthogonal(torch.nn.Linear(20, 40))
        >>> torch.allclose(layer.weight.mT @ layer.weight, torch.eye(20), atol=1e-5)
        True
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"`name` must be that of a parameter of `module`; got {name!r}.")
    (check_square if special else check_matrix)(name, weight)
    return parametrize.register_parametrization(module, name, SpecialOrthogonal() if special else Stiefel())


class _Last:
    """Hold the rotations of the last training forward, by which the next one knows a sign; nobody else's."""

    def __init__(self):
        self.value: Tensor | None = None

    def __reduce__(self) -> Any:
        return _Last, ()


def _kept(matrix: Tensor, last: _Last | None = None) -> Tensor:
    """Return the factor, or with `last` the nearest rotation."""
    exact = orthogonalize if last is None else special_orthogonalize
    if not _is_plain(matrix):
        if torch.compiler.is_compiling() and _is_trained(matrix) and not is_exporting():
            with torch.no_grad():
                matrix.copy_(exact(matrix))
        return exact(matrix)
    if not (torch.is_grad_enabled() and matrix.requires_grad):
        with torch.no_grad():
            return _factor(matrix.detach(), last)
    return _Kept.apply(matrix, last) if _is_trained(matrix) else exact(matrix)


def _is_trained(matrix: Tensor) -> bool:
    return isinstance(matrix, nn.Parameter) and matrix.requires_grad and torch.is_grad_enabled()


def _is_plain(matrix: Tensor) -> bool:
    """Whether there is nobody who transforms or writes down."""
    if torch.compiler.is_compiling() or torch._C._is_tracing() or forward_ad._current_level >= 0:
        return False
    return not (torch._C._are_functorch_transforms_active() or is_legacy_batch(matrix))


def _factor(matrix: Tensor, last: _Last | None) -> Tensor:
    """The factor, where derivatives are turned off.

    What is plain is asked for first: of a small one that spares half of the time.
    """
    shape = matrix.shape
    rows, columns = shape[-2:]
    if rows == columns and rows in (2, 3):
        return orthogonalize(matrix) if last is None else special_orthogonalize(matrix)
    if len(shape) == 2 and rows >= columns and matrix.dtype in FULL and matrix.is_contiguous():
        return _batch_factor(matrix.unsqueeze(0), last).squeeze(0)
    m = (matrix if rows >= columns else matrix.mT).to(compute_dtype(matrix))
    q = _batch_factor(one_batch(m).contiguous(), last).reshape(m.shape)
    return (q if rows >= columns else q.mT).to(result_dtype(matrix))


def _batch_factor(m: Tensor, last: _Last | None) -> Tensor:
    if last is None:
        return nearby.orthogonalize(m)
    last.value = found = nearby.special_orthogonalize(m, last.value)
    return found


class _Kept(torch.autograd.Function):
    """The factor, which the matrix becomes; its derivative is that at the factor."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, last: _Last | None) -> Tensor:
        free = matrix.detach()
        found = _factor(free, last)
        free.copy_(found)
        ctx.save_for_backward(found)
        ctx.parameter = matrix  # not saved: of several forwards before a backward each writes to it
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,), (found,) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():  # and the derivative is to be differentiated
            matrix = found.detach() + (ctx.parameter - ctx.parameter.detach())
            return _differential(matrix, found, g), None
        return _tangent(found, g), None


def _tangent(found: Tensor, g: Tensor) -> Tensor:
    """G less W times the symmetric part of WᵀG."""
    if found.ndim == 2 and found.dtype in FULL and found.shape[0] >= found.shape[1] != 3:
        return _projected(found, g)
    if found.shape[-2:] == (3, 3):
        return steps.tangent(found, g)
    if found.shape[-2] < found.shape[-1]:
        return _tangent(found.mT, g.mT).mT
    w, g = (x if x.ndim == 2 else one_batch(x) for x in (found, g))
    dtype = compute_dtype(w)
    return _projected(w.to(dtype), g.to(dtype)).reshape(found.shape).to(found.dtype)


@in_full_precision
def _projected(w: Tensor, g: Tensor) -> Tensor:
    a = w.mT @ g
    if w.shape[-1] == w.shape[-2]:
        return w @ (a - a.mT).mul_(0.5)
    return g - w @ (a + a.mT).mul_(0.5)


def _differential(matrix: Tensor, found: Tensor, g: Tensor) -> Tensor:
    wide = found.shape[-2] < found.shape[-1]
    tall = (one_batch(x.mT if wide else x).to(compute_dtype(x)) for x in (matrix, found, g))
    moved = any_size.orthogonalize_differential(*tall)
    return (moved.mT if wide else moved).reshape(found.shape).to(found.dtype)


def _check_orthonormal(name: str, value: Tensor) -> None:
    tolerance = 10 * max(value.shape[-2:]) * torch.finfo(value.dtype).eps
    q = value.detach().to(compute_dtype(value))
    q = q.mT if q.shape[-2] < q.shape[-1] else q
    defect = nearby.orthonormality(q)
    if not (defect <= tolerance).all():
        first = tuple((~(defect <= tolerance)).nonzero()[0].tolist())
        raise NoRotationError(
            f"`{name}` must be orthonormal, to {tolerance:.1e}; got |QᵀQ - I| = {defect[first]:.1e}"
            f"{f' at {first}' if first else ''}. Assign `svdrot.orthogonalize({name})` for the nearest."
        )
