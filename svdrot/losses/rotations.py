r"""Losses between two rotations, of their angle $\theta$ or their chord $2 \sqrt 2 \sin(\theta / 2)$.

| loss | value at the angle | gradient along it |
|---|---|---|
| geodesic | theta | 1 |
| squared_geodesic | theta^2 | 2 theta |
| chordal | 2 sqrt 2 sin(theta / 2) | from sqrt 2 to 0 at a half turn |
| squared_chordal | 4 (1 - cos theta) | 4 sin theta: 0 at a half turn |

The first and third are Laplacian errors, of a median, the others Gaussian, of a mean; Huber's are both.
"""

from torch import Tensor

from svdrot._checks import check_positive
from svdrot._formulas import losses, turns

NAMES = ("estimate", "truth")
_GEODESIC = turns.geodesic_distance.named(*NAMES)
_SQUARED_GEODESIC = turns.squared_geodesic_distance.named(*NAMES)
_CHORDAL = turns.chordal_distance.named(*NAMES)
_SQUARED_CHORDAL = turns.squared_chordal_distance.named(*NAMES)


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
    return _GEODESIC(estimate, truth)


def squared_geodesic(estimate: Tensor, truth: Tensor) -> Tensor:
    """Square of the angle, smooth at 0: every derivative there is that of the square of a rotation vector.

    Args and Raises as for `geodesic`.

    Returns:
        Radians squared, shape (...), in [0, pi^2]. The gradient at exactly pi is zero.

    Source:
        Hartley et al., "Rotation Averaging", Int. J. Comput. Vis. 103 (2013), section 4.
    """
    return _SQUARED_GEODESIC(estimate, truth)


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
    return _CHORDAL(estimate, truth)


def squared_chordal(estimate: Tensor, truth: Tensor) -> Tensor:
    r"""Sum of the squared differences of the entries, $4 (1 - \cos \theta)$ for rotations.

    Args and Raises as for `chordal`.

    Returns:
        Shape (...), in [0, 8] for rotations. The gradient on SO(3) is zero at exactly pi, too, a maximum.

    Source:
        Levinson et al., "An Analysis of SVD for Deep Rotation Estimation", NeurIPS 2020, whose loss is half
        of this, summed over the batch.
    """
    return _SQUARED_CHORDAL(estimate, truth)


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
    return losses.huber_geodesic(estimate, truth, scalars=(threshold,))


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
    return losses.huber_chordal(estimate, truth, scalars=(threshold,))


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
    return losses.laplace_geodesic(estimate, truth, scale)
