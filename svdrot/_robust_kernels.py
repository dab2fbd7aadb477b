r"""M-estimators, once: what a residual costs, and the weight that makes least squares minimize that cost.

With $q = r^2 / c^2$ a cost is $c^2 \rho(q)$, and minimizing it by reweighted least squares takes the weight
$w(q) = \rho'(q)$. All have $\rho(q) = q + O(q^2)$, so that small residuals count as in least squares.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RobustKernel:
    r"""Describe an M-estimator: a row of `KERNELS`.

    Attributes:
        weight: $w(q)$, from any shape to the same, in [0, 1], 1 at 0, never NaN for q in [0, inf].
        cost: $\rho(q)$, its integral from 0.
        tuning: c, in standard deviations of Gaussian noise, with which 95 % of the efficiency of least
            squares are kept. `svdrot.registration.icp` takes it times the deviation that it estimates.

    Example:
        >>> import svdrot
        >>> from svdrot.registration import KERNELS, RobustKernel
        >>> KERNELS["cauchy"] = RobustKernel(lambda q: 1 / (1 + q), lambda q: q.log1p(), tuning=2.385)
        >>> x = svdrot.random_rotation(5)[..., 0]
        >>> svdrot.registration.robust_kabsch(x, x, threshold=0.1, method="cauchy").weights
        tensor([1., 1., 1., 1., 1.])
        >>> del KERNELS["cauchy"]
    """

    weight: Callable[[Tensor], Tensor]
    cost: Callable[[Tensor], Tensor]
    tuning: float


def _huber_weight(q: Tensor) -> Tensor:
    return q.clamp_min(1).rsqrt()


def _huber_cost(q: Tensor) -> Tensor:
    return torch.where(q > 1, 2 * q.clamp_min(1).sqrt() - 1, q)


def _tukey_weight(q: Tensor) -> Tensor:
    return (1 - q).clamp_min(0).square()


def _tukey_cost(q: Tensor) -> Tensor:
    return (1 - (1 - q).clamp_min(0) ** 3) / 3


def _geman_mcclure_weight(q: Tensor) -> Tensor:
    return (1 + q) ** -2


def _geman_mcclure_cost(q: Tensor) -> Tensor:
    return torch.where(q.isinf(), 1, q / (1 + q))


# Tunings: Holland and Welsch, Comm. Statist. A6 (1977); Geman-McClure's by the same integrals.
KERNELS = {
    "huber": RobustKernel(_huber_weight, _huber_cost, 1.345),
    "tukey": RobustKernel(_tukey_weight, _tukey_cost, 4.685),
    "geman_mcclure": RobustKernel(_geman_mcclure_weight, _geman_mcclure_cost, 3.787),
}
