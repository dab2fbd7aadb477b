r"""Losses between two rotations, of their angle $\theta$ or their chord $2 \sqrt 2 \sin(\theta / 2)$.

| loss | value at the angle | gradient along it |
|---|---|---|
| geodesic | theta | 1 |
| squared_geodesic | theta^2 | 2 theta |
| chordal | 2 sqrt 2 sin(theta / 2) | from sqrt 2 to 0 at a half turn |
| squared_chordal | 4 (1 - cos theta) | 4 sin theta: 0 at a half turn |

The first and third are Laplacian errors, of a median, the others Gaussian, of a mean; Huber's are both.
"""

import math

import torch
from torch import Tensor

from svdrot._checks import check_floating, check_positive, common_batch, result_dtype, to_compute
from svdrot.metrics import length, promote, relative_turn

NAMES = ("estimate", "truth")


def geodesic(estimate: Tensor, truth: Tensor) -> Tensor:
    """Angle between two rotations, exact and with unit gradient right up to 0 and pi.

    Args:
        estimate: rotations, shape (..., 3, 3).
        truth: rotations, shape (..., 3, 3); batch dimensions broadcast.

    Returns:
        Radians, shape (...), in [0, pi]. The gradient at exactly 0 and exactly pi is zero.

    Raises:
        ValueError: if the last two dimensions of an argument are not (3, 3).
        TypeError: if an argument is not floating point.

    Source:
        Huynh, "Metrics for 3D Rotations", J. Math. Imaging Vis. 35 (2009), metric phi_6.
    """
    estimate, truth, result = promote(estimate, truth, NAMES)
    sine, cosine = relative_turn(estimate, truth)
    return torch.atan2(length(sine), cosine).to(result)


def squared_geodesic(estimate: Tensor, truth: Tensor) -> Tensor:
    """Square of the angle, smooth at 0: every derivative there is that of the square of a rotation vector.

    Args and Raises as for `geodesic`.

    Returns:
        Radians squared, shape (...), in [0, pi^2]. The gradient at exactly pi is zero.

    Source:
        Hartley et al., "Rotation Averaging", Int. J. Comput. Vis. 103 (2013), section 4.
    """
    estimate, truth, result = promote(estimate, truth, NAMES)
    return _squared_angle(estimate, truth).to(result)


def _squared_angle(a: Tensor, b: Tensor) -> Tensor:
    sine, cosine = relative_turn(a, b)
    squared = (sine * sine).sum(-1) / 4
    # asin(sqrt x)^2 = x + x^2 / 3 + 8 x^3 / 45 + ..., right to eps where x^3 < eps, its derivative too.
    small = ((squared < torch.finfo(squared.dtype).eps ** (1 / 3)) & (cosine > 0)).detach()
    x = torch.where(small, squared, 0)
    series = x * (1 + x * (1 / 3 + x * (8 / 45 + x * (4 / 35))))
    away = torch.where(small[..., None], 1, sine)
    return torch.where(small, series, torch.atan2(length(away), torch.where(small, 1, cosine)) ** 2)


def chordal(estimate: Tensor, truth: Tensor) -> Tensor:
    r"""Frobenius norm of the difference, $2 \sqrt 2 \sin(\theta / 2)$ for rotations.

    Args:
        estimate: rotations, or any matrices, shape (..., 3, 3).
        truth: the same; batch dimensions broadcast.

    Returns:
        Shape (...), in [0, 2 sqrt 2] for rotations. The gradient where the two are equal is zero.

    Raises:
        ValueError: if the last two dimensions of an argument are not (3, 3).
        TypeError: if an argument is not floating point.

    Source:
        Huynh, J. Math. Imaging Vis. 35 (2009), metric phi_5.
    """
    estimate, truth, result = promote(estimate, truth, NAMES)
    return length((estimate - truth).flatten(-2)).to(result)


def squared_chordal(estimate: Tensor, truth: Tensor) -> Tensor:
    r"""Sum of the squared differences of the entries, $4 (1 - \cos \theta)$ for rotations.

    Args and Raises as for `chordal`.

    Returns:
        Shape (...), in [0, 8] for rotations. The gradient on SO(3) is zero at exactly pi, too, a maximum.

    Source:
        Levinson et al., "An Analysis of SVD for Deep Rotation Estimation", NeurIPS 2020, whose loss is half
        of this, summed over the batch.
    """
    estimate, truth, result = promote(estimate, truth, NAMES)
    return (estimate - truth).square().sum((-2, -1)).to(result)


def raw_9d(matrix: Tensor, truth: Tensor) -> Tensor:
    """`squared_chordal` of a matrix that was not projected, as heads give in training until inference.

    Of uncertain truths the matrix of least expected loss is their mean, whose nearest rotation is their
    chordal mean, and whose singular values tell of their spread.

    Source: Levinson et al., NeurIPS 2020 (SVD-Inference); Gu et al., "Learning Unorthogonalized Matrices for
    Rotation Estimation", arXiv 2312.00462.
    """
    return squared_chordal(matrix, truth)


def huber_geodesic(estimate: Tensor, truth: Tensor, threshold: float) -> Tensor:
    r"""Huber's function of the angle: $\theta^2 / 2$ up to `threshold` d, $d (\theta - d / 2)$ beyond.

    Args:
        estimate, truth: as for `geodesic`.
        threshold: radians, positive; the largest length of the gradient.

    Returns:
        Radians squared, shape (...), at least 0. Smooth at 0; the gradient at exactly pi is zero.

    Raises:
        ValueError: if `threshold` is not positive and finite; otherwise as `geodesic`.

    Source:
        Huber, "Robust Estimation of a Location Parameter", Ann. Math. Statist. 35 (1964).
    """
    check_positive("threshold", threshold)
    estimate, truth, result = promote(estimate, truth, NAMES)
    return _huber(_squared_angle(estimate, truth), threshold).to(result)


def _huber(squared: Tensor, threshold: float) -> Tensor:
    far = (squared > threshold**2).detach()
    distance = torch.where(far, squared, 1).sqrt()
    return torch.where(far, threshold * (distance - threshold / 2), squared / 2)


def huber_chordal(estimate: Tensor, truth: Tensor, threshold: float) -> Tensor:
    """Huber's function of the Frobenius norm of the difference; as `huber_geodesic` for any matrices.

    Args:
        estimate, truth: as for `chordal`.
        threshold: positive; beyond 2 sqrt 2 it tells no rotations apart. The largest length of the gradient.

    Returns:
        Shape (...), at least 0. Smooth where the two are equal.

    Raises:
        ValueError: if `threshold` is not positive and finite; otherwise as `chordal`.

    Source:
        Huber, Ann. Math. Statist. 35 (1964).
    """
    check_positive("threshold", threshold)
    estimate, truth, result = promote(estimate, truth, NAMES)
    return _huber((estimate - truth).square().sum((-2, -1)), threshold).to(result)


def laplace_geodesic(estimate: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    r"""Negative log density of the Laplace distribution of the angle, $\theta / b + \ln Z(b)$.

    The density $e^{-\theta / b} / Z$ is against the uniform measure on SO(3), of which the angle has the
    density $(1 - \cos \theta) / \pi$; with $k = 1 / b$

    $$ Z = \frac 1\pi \int_0^\pi e^{-k \theta} (1 - \cos \theta) d\theta
         = \frac{1 - e^{-k \pi} (1 + 2 k^2)}{\pi k (1 + k^2)}. $$

    With a scale that the network predicts beside the rotation it learns how far off it is: the best scale is
    a third of the mean angle where that is small.

    Args:
        estimate, truth: as for `geodesic`.
        scale: b, radians, shape (...); batch dimensions broadcast. Large ones approach the uniform
            distribution; what is not positive and finite gives NaN in its place.

    Returns:
        Nats, shape (...); negative where the density is above the uniform one.

    Raises:
        TypeError: if `scale` is not floating point; otherwise as `geodesic`.

    Source:
        Kendall and Gal, "What Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?",
        NeurIPS 2017, here with the normaliser of SO(3).
    """
    check_floating("scale", scale)
    estimate, truth, result = promote(estimate, truth, NAMES)
    common_batch(estimate=estimate.shape[:-2], truth=truth.shape[:-2], scale=scale.shape)
    sine, cosine = relative_turn(estimate, truth)
    b = to_compute(scale[..., None], 1)[..., 0]
    b = torch.where(b > 0, b, torch.nan)
    loss = torch.atan2(length(sine), cosine) / b + _log_laplace_normalizer(b)
    return loss.to(torch.promote_types(result, result_dtype(scale)))


def _log_laplace_normalizer(b: Tensor) -> Tensor:
    narrow = b < 0.01  # what is subtracted from 1 is below exp(-300)
    wide = torch.where(narrow, 1, b)
    k = 1 / wide
    over_k = (-torch.expm1(-math.pi * k) - 2 * k * k * torch.exp(-math.pi * k)) * (wide / math.pi)
    log_b = torch.where(narrow, b, 1).log()
    cube = 3 * log_b - math.log(math.pi) - torch.log1p(torch.where(narrow, b * b, 0))
    return torch.where(narrow, cube, over_k.log() - torch.log1p(k * k))
