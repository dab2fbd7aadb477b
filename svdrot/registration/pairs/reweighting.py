r"""Least squares with weights that follow the residuals: M-estimators, and their graduated forms.

A robust cost $\sum \rho(r)$ with residuals $r = |T x - y|$ is least where a weighted least-squares fit has
the weights $\rho'(r) / r$. Huber's cost is convex in r; Geman and McClure's, and the truncated square, ignore
what is far, and started at the least-squares fit of all pairs they end in a local minimum. Graduated
non-convexity starts at a surrogate without one, and bends it step by step into the true cost by a control
$\mu$. With $c$ the threshold, equations 12 and 14 of the source are, for weights,

    Geman-McClure       $(\mu c^2 / (r^2 + \mu c^2))^2$                  $\mu$ falling to 1,
    truncated squares   $c \sqrt{\mu (\mu + 1)} / r - \mu$, in [0, 1]    $\mu$ growing until all are 0 or 1.

Source:
    Yang, Antonante, Tzoumas and Carlone, "Graduated Non-Convexity for Robust Spatial Perception", IEEE RA-L
    5 (2020), arXiv 1909.08605; Black and Rangarajan, IJCV 19 (1996); Holland and Welsch (1977).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from svdrot._robust_kernels import KERNELS, RobustKernel
from svdrot.registration.pairs._hypotheses import Selection, squared_residuals
from svdrot.registration.pairs.procrustes import kabsch, umeyama

FACTOR = 1.4  # of the control, from one step to the next: the source's
STEPS = 200
STILL = 1e-6  # change of weights that counts as none


@dataclass(frozen=True)
class Rule:
    """Describe an M-estimator: weights of squared residuals over thresholds, and the control's schedule."""

    weights: Callable[[Tensor, Tensor], Tensor]  # of r² / c², (B, N), and the control, (B, 1)
    start: Callable[[Tensor], Tensor]  # the control, from the largest r² / c²
    next: Callable[[Tensor], Tensor]


def _truncated(q: Tensor, mu: Tensor) -> Tensor:
    return ((mu * (mu + 1)).sqrt() / q.clamp_min(1e-300).sqrt() - mu).clamp(0, 1)


def _one(value: Tensor) -> Tensor:
    return torch.ones_like(value)


def plain(kernel: RobustKernel) -> Rule:
    """Make a rule that takes the kernel as it is, from the first step on."""
    return Rule(lambda q, mu: kernel.weight(q), _one, _one)


# The scale of Geman-McClure's kernel shrinks to its own.
GRADUATED_GEMAN_MCCLURE = Rule(
    lambda q, mu: KERNELS["geman_mcclure"].weight(q / mu),
    lambda q: (2 * q).clamp_min(1),
    lambda mu: (mu / FACTOR).clamp_min(1),
)
GRADUATED_TRUNCATED = Rule(
    _truncated, lambda q: 1 / (2 * q - 1).clamp_min(1e-9), lambda mu: (mu * FACTOR).clamp_max(1e9)
)


def reweighted(rule: Rule, x: Tensor, y: Tensor, w: Tensor, threshold: Tensor, scaled: bool) -> Selection:
    """Reweight until the weights stay the same.

    Args:
        rule: of the weights.
        x: source, (B, N, 3), float64.
        y: target, likewise.
        w: weights, (B, N), 0 for what is not there.
        threshold: (B,).
        scaled: whether to fit similarities.
    """
    fit = umeyama if scaled else kabsch
    limit = threshold.square()[:, None]
    live = w > 0

    def residuals(weights: Tensor) -> Tensor:
        q = squared_residuals(fit(x, y, weights), x, y) / limit
        return torch.where(live, q, 0)

    q = residuals(w)
    mu = rule.start(q.amax(1, keepdim=True)) if x.shape[1] else limit
    factor = live.double()
    iterations = torch.zeros_like(w[:, 0] if x.shape[1] else threshold, dtype=torch.long)
    settled = torch.zeros_like(iterations, dtype=torch.bool)
    for _ in range(STEPS):
        new = torch.where(live, rule.weights(q, mu), 0)
        still = ((new - factor).abs() <= STILL).all(1)
        binary = ((new == 0) | (new == 1)).all(1)
        factor = torch.where(settled[:, None], factor, new)
        iterations = iterations + ~settled
        at_end = (rule.next(mu) == mu)[:, 0] | binary
        settled = settled | (still & at_end)
        if settled.all():
            break
        mu = rule.next(mu)
        q = residuals(w * factor)
    return Selection(w * factor, iterations, settled)
