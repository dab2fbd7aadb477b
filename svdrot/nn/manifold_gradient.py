r"""The projective manifold gradient: the least change of raw numbers that turns their rotation as asked.

Chen et al. turn the rotation R of the raw numbers x a step down the loss, to a goal $R_g = R \exp(-\tau
[\omega]_\times)$, with $\omega$ the gradient in rotation vectors of $R^\top R'$. Of all raw numbers of the
goal (its fiber) they take the nearest to x, $x_{gp}$, and hand the network $x - x_{gp} + \lambda (x_{gp} -
\hat x_g)$, where $\hat x_g$ are the standard numbers of the goal; the last term keeps x from shrinking, since
the nearest point of a ray is shorter. As $\omega$ fixes how far the goal is, while the last term does not
depend on it, the step needs a loss whose scale is known, which they take to be the sum over the batch.

Here $\tau$ goes to zero and the gradient is per unit of it. With the Jacobian J of the map from x to
rotation vectors the fiber of the goal runs, to first order, through $x - J^+ \tau\omega$, perpendicular to
that displacement, so that

$$ \frac{x - x_{gp}}\tau \to J^+ \omega, $$

where backpropagation has $J^\top \omega$. The pseudo-inverse $J^+$ is linear in $\omega$, does not shrink x,
and keeps the promise of the goal: a step of $-\eta J^+ \omega$ turns R by $-\eta \omega$. J grows as 1 / |x|
and has a pole where two rotations are equally near; $J^+$ goes to zero there. The pull is taken in the same
proportion, $\text{pull} \cdot |\omega| (x - \hat x)$: where the goal is $\alpha$ radians away, that is
$\lambda = \text{pull} \cdot \alpha$. So the whole is of first degree in $\omega$, and any reduction, weight
or scaling of the loss scales it alike.

$J^+$ of each representation is in `svdrot._formulas.fibers`.

Source: Chen et al., "Projective Manifold Gradient Layer for Deep Rotation Regression", CVPR 2022, arXiv
2110.11657, sections 4.2 to 4.4, whose representations these are; the limit and $J^+$ are derived here.
"""

import torch
from torch import Tensor

from svdrot._formulas.fibers import FIBERS
from svdrot._rules import backward_rule


def attach(x: Tensor, rotation: Tensor, representation: str, pull: float) -> Tensor:
    """Return `rotation`, (..., 3, 3), with the projective manifold gradient to `x`, (..., features)."""
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
    @backward_rule
    def backward(ctx, g):
        x, r = ctx.saved_tensors
        return FIBERS[ctx.representation].gradient(x, r, g, scalars=(ctx.pull,)), None, None, None
