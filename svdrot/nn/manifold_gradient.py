r"""The projective manifold gradient: the least change of raw numbers that turns their rotation as asked.

Chen et al. turn the rotation R of the raw numbers x a step down the loss, to a goal $R_g = R \exp(-\tau
[\omega]_\times)$, with $\omega$ the gradient in rotation vectors of $R^\top R'$. Of all raw numbers of the
goal (its fibre) they take the nearest to x, $x_{gp}$, and hand the network $x - x_{gp} + \lambda (x_{gp} -
\hat x_g)$, where $\hat x_g$ are the standard numbers of the goal; the last term keeps x from shrinking, since
the nearest point of a ray is shorter. As $\omega$ fixes how far the goal is, while the last term does not
depend on it, the step needs a loss whose scale is known, which they take to be the sum over the batch.

Here $\tau$ goes to zero and the gradient is per unit of it. With the Jacobian J of the map from x to
rotation vectors the fibre of the goal runs, to first order, through $x - J^+ \tau\omega$, perpendicular to
that displacement, so that

$$ \frac{x - x_{gp}}\tau \to J^+ \omega, $$

where backpropagation has $J^\top \omega$. The pseudo-inverse $J^+$ is linear in $\omega$, does not shrink x,
and keeps the promise of the goal: a step of $-\eta J^+ \omega$ turns R by $-\eta \omega$. J grows as 1 / |x|
and has a pole where two rotations are equally near; $J^+$ goes to zero there. The pull is taken in the same
proportion, $\text{pull} \cdot |\omega| (x - \hat x)$: where the goal is $\alpha$ radians away, that is
$\lambda = \text{pull} \cdot \alpha$. So the whole is of first degree in $\omega$, and any reduction, weight
or scaling of the loss scales it alike.

Below, x are raw numbers (..., features), r their rotation, and a `lift` is $J^+ \omega$.

Source: Chen et al., "Projective Manifold Gradient Layer for Deep Rotation Regression", CVPR 2022, arXiv
2110.11657, sections 4.2 to 4.4, whose representations these are; the limit and $J^+$ are derived here.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from svdrot.metrics import axial_vector, length
from svdrot.representations import convert_rotation, matrix_to_quaternion, matrix_to_symmetric_10d


def attach(x: Tensor, rotation: Tensor, representation: str, pull: float) -> Tensor:
    """`rotation`, (..., 3, 3), with the projective manifold gradient to `x`, (..., features)."""
    return _ManifoldGradient.apply(x, rotation, representation, pull)  # pyright: ignore[reportReturnType]


class _ManifoldGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, rotation, representation, pull):
        return rotation.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, rotation, ctx.representation, ctx.pull = inputs
        ctx.save_for_backward(x, rotation)

    @staticmethod
    def backward(ctx, g):
        x, r = ctx.saved_tensors
        fibre = FIBRES[ctx.representation]
        # <G, R [w]x> = w . (RᵀG - GᵀR)^v. No `@`: bfloat16 under autocast, TF32 on a GPU.
        omega = axial_vector((r[..., :, :, None] * g[..., :, None, :]).sum(-3))
        pull = ctx.pull * length(omega)[..., None] * (x - fibre.standard(x, r))
        return fibre.lift(x, r, omega) + pull, None, None, None


class _Fibre(NamedTuple):
    lift: Callable[[Tensor, Tensor, Tensor], Tensor]
    standard: Callable[[Tensor, Tensor], Tensor]


def _lift_9d(x: Tensor, r: Tensor, omega: Tensor) -> Tensor:
    r"""The fibre of R is R P, P symmetric. With $\delta = (\operatorname{tr} P\, I - P)^{-1}
    (R^\top dM - dM^\top R)^\vee$, $J^\top$ multiplies by that inverse and $J J^\top$ is twice its square, so
    $J^+ \omega = \frac12 R\, [(\operatorname{tr} P\, I - P)\, \omega]_\times$: nothing is divided by.
    """
    p = (r[..., :, :, None] * x.unflatten(-1, (3, 3))[..., :, None, :]).sum(-3)
    trace = p.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    half = (trace * omega - (p * omega[..., None, :]).sum(-1)) / 2
    return torch.linalg.cross(r, half[..., None, :]).flatten(-2)  # a row times [v]x is its product with v


def _lift_6d(x: Tensor, r: Tensor, omega: Tensor) -> Tensor:
    """The fibre of (u, v, w) is (a u, b u + c v) with any a, b, c; turned by omega, u moves by omega_3 v -
    omega_2 w, and v in the direction of w by omega_1. What moves the vectors along the fibre is left out."""
    first, second = x.unflatten(-1, (2, 3)).unbind(-2)
    u, v, w = r.unbind(-1)
    one, two, three = omega[..., None].unbind(-2)
    a, b, c = ((n * m).sum(-1, keepdim=True) for n, m in ((first, u), (second, u), (second, v)))
    return torch.cat((a * (three * v - two * w), (c * one - b * two) * w), -1)


def _lift_quaternion(x: Tensor, r: Tensor, omega: Tensor) -> Tensor:
    """The fibre is the line through x, perpendicular to half the product of x and (0, omega)."""
    return _times_imaginary(x, omega) / 2


def _times_imaginary(q: Tensor, v: Tensor) -> Tensor:
    """The quaternion product of q and (0, v)."""
    w, u = q.split((1, 3), -1)
    return torch.cat((-(u * v).sum(-1, keepdim=True), w * v + torch.linalg.cross(u, v)), -1)


def _standard_quaternion(x: Tensor, r: Tensor) -> Tensor:
    return convert_rotation(x, "quaternion", "quaternion")


def _lift_10d(x: Tensor, r: Tensor, omega: Tensor) -> Tensor:
    r"""The fibre of q are the symmetric A with A q = $\lambda$ q. To first order A + dA has the eigenvector
    q + d if dA q = $-(A - \lambda) d = -y$ up to multiples of q; least in Frobenius norm is $-(q y^\top + y
    q^\top)$, as y is perpendicular to q. (In the norm of the ten numbers, each off-diagonal entry counted
    once, it would depend on the frame.)
    """
    q = matrix_to_quaternion(r)
    row, column = torch.triu_indices(4, 4, device=x.device)
    a = x[..., _SYMMETRIC].unflatten(-1, (4, 4))
    d = _times_imaginary(q, omega) / 2
    ad, aq = ((a * v[..., None, :]).sum(-1) for v in (d, q))
    y = ad - (q * aq).sum(-1, keepdim=True) * d
    return -(q[..., row] * y[..., column] + y[..., row] * q[..., column])


_SYMMETRIC = [0, 1, 2, 3, 1, 4, 5, 6, 2, 5, 7, 8, 3, 6, 8, 9]  # where in the upper triangle each entry stands

FIBRES = {
    "svd": _Fibre(_lift_9d, lambda x, r: r.flatten(-2)),
    "6d": _Fibre(_lift_6d, lambda x, r: r[..., :2].mT.flatten(-2)),
    "quaternion": _Fibre(_lift_quaternion, _standard_quaternion),
    "10d": _Fibre(_lift_10d, lambda x, r: matrix_to_symmetric_10d(r)),
}
