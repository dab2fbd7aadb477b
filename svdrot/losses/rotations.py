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
    """Return the angle between two rotations, exact and with unit gradient right up to 0 and pi.

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

    Example:
        >>> import torch, svdrot
        >>> truth = torch.eye(3)
        >>> estimate = svdrot.axis_angle_to_matrix(torch.tensor([[0.0, 0.0, 0.5], [2.0, 0.0, 0.0]]))
        >>> svdrot.losses.geodesic(estimate, truth)
        tensor([0.5000, 2.0000])
    """
    return _GEODESIC(estimate, truth)


def squared_geodesic(estimate: Tensor, truth: Tensor) -> Tensor:
    """Return the square of the angle between two rotations.

    It is smooth at 0: every derivative there is that of the square of a rotation vector.

    Args:
        estimate: rotations, shape (..., 3, 3).
        truth: rotations, shape (..., 3, 3); batch dimensions broadcast.

    Returns:
        Radians squared, shape (...), in [0, pi^2]. The gradient at exactly pi is zero.

    Raises:
        ValueError: if the last two dimensions of an argument are not (3, 3).
        TypeError: if an argument is not floating point.

    Source:
        Hartley et al., "Rotation Averaging", Int. J. Comput. Vis. 103 (2013), section 4.

    Example:
        >>> import torch, svdrot
        >>> estimate = svdrot.axis_angle_to_matrix(torch.tensor([[0.0, 0.0, 0.5], [2.0, 0.0, 0.0]]))
        >>> svdrot.losses.squared_geodesic(estimate, torch.eye(3))
        tensor([0.2500, 4.0000])
    """
    return _SQUARED_GEODESIC(estimate, truth)


def chordal(estimate: Tensor, truth: Tensor) -> Tensor:
    r"""Return the Frobenius norm of the difference, $2 \sqrt 2 \sin(\theta / 2)$ for rotations.

    Args:
        estimate: rotations, or any matrices, shape (..., 3, 3).
        truth: rotations, or any matrices, shape (..., 3, 3); batch dimensions broadcast.

    Returns:
        Shape (...), in [0, 2 sqrt 2] for rotations. The gradient where the two are equal is zero.

    Raises:
        ValueError: if the last two dimensions of an argument are not (3, 3).
        TypeError: if an argument is not floating point.

    Source:
        Huynh, J. Math. Imaging Vis. 35 (2009), metric phi_5.

    Example:
        >>> import torch, svdrot
        >>> estimate = svdrot.axis_angle_to_matrix(torch.tensor([[0.0, 0.0, 0.5], [torch.pi, 0.0, 0.0]]))
        >>> svdrot.losses.chordal(estimate, torch.eye(3))
        tensor([0.6998, 2.8284])
    """
    return _CHORDAL(estimate, truth)


def squared_chordal(estimate: Tensor, truth: Tensor) -> Tensor:
    r"""Return the sum of the squared differences of the entries, $4 (1 - \cos \theta)$ for rotations.

    Args:
        estimate: rotations, or any matrices, shape (..., 3, 3).
        truth: rotations, or any matrices, shape (..., 3, 3); batch dimensions broadcast.

    Returns:
        Shape (...), in [0, 8] for rotations. The gradient on SO(3) is zero at exactly pi, too, a maximum.

    Raises:
        ValueError: if the last two dimensions of an argument are not (3, 3).
        TypeError: if an argument is not floating point.

    Source:
        Levinson et al., "An Analysis of SVD for Deep Rotation Estimation", NeurIPS 2020, whose loss is half
        of this, summed over the batch.

    Example:
        >>> import torch, svdrot
        >>> estimate = svdrot.axis_angle_to_matrix(torch.tensor([[0.0, 0.0, 0.5], [torch.pi, 0.0, 0.0]]))
        >>> svdrot.losses.squared_chordal(estimate, torch.eye(3))
        tensor([0.4897, 8.0000])
    """
    return _SQUARED_CHORDAL(estimate, truth)


def raw_9d(matrix: Tensor, truth: Tensor) -> Tensor:
    """Return `squared_chordal` of a matrix that was not projected, as heads give in training until inference.

    Where the truth is uncertain, the matrix of least expected loss is the mean of the possible truths. Its
    nearest rotation is their chordal mean, and its singular values tell their spread.

    Args:
        matrix: any matrices, shape (..., 3, 3).
        truth: rotations, shape (..., 3, 3); batch dimensions broadcast.

    Returns:
        Shape (...), at least 0. Smooth everywhere.

    Raises:
        ValueError: if the last two dimensions of an argument are not (3, 3).
        TypeError: if an argument is not floating point.

    Source:
        Levinson et al., NeurIPS 2020 (SVD-Inference); Gu et al., "Learning Unorthogonalized Matrices for
        Rotation Estimation", arXiv 2312.00462.

    Example:
        >>> import torch, svdrot
        >>> head = svdrot.nn.RotationHead(16, "svd", strategy="inference")  # raw matrices in training
        >>> features, truth = torch.randn(8, 16), svdrot.random_rotation(8)
        >>> svdrot.losses.raw_9d(head(features), truth).shape
        torch.Size([8])
        >>> svdrot.losses.raw_9d(1.5 * torch.eye(3), torch.eye(3))
        tensor(0.7500)
    """
    return squared_chordal(matrix, truth)


def huber_geodesic(estimate: Tensor, truth: Tensor, threshold: float) -> Tensor:
    r"""Return Huber's function of the angle: $\theta^2 / 2$ up to `threshold` d, $d (\theta - d / 2)$ beyond.

    Args:
        estimate: rotations, shape (..., 3, 3).
        truth: rotations, shape (..., 3, 3); batch dimensions broadcast.
        threshold: radians, positive; the largest length of the gradient.

    Returns:
        Radians squared, shape (...), at least 0. Smooth at 0; the gradient at exactly pi is zero.

    Raises:
        ValueError: if `threshold` is not positive and finite, or the last two dimensions of a tensor are not
            (3, 3).
        TypeError: if `estimate` or `truth` is not floating point.

    Source:
        Huber, "Robust Estimation of a Location Parameter", Ann. Math. Statist. 35 (1964).

    Example:
        >>> import torch, svdrot
        >>> estimate = svdrot.axis_angle_to_matrix(torch.tensor([[0.0, 0.0, 0.1], [1.0, 0.0, 0.0]]))
        >>> svdrot.losses.huber_geodesic(estimate, torch.eye(3), threshold=0.2)
        tensor([0.0050, 0.1800])
    """
    check_positive("threshold", threshold)
    return losses.huber_geodesic(estimate, truth, scalars=(threshold,))


def huber_chordal(estimate: Tensor, truth: Tensor, threshold: float) -> Tensor:
    """Return Huber's function of the Frobenius norm of the difference, of rotations or any matrices.

    With c the norm and d the threshold it is c^2 / 2 up to d, and d (c - d / 2) beyond.

    Args:
        estimate: rotations, or any matrices, shape (..., 3, 3).
        truth: rotations, or any matrices, shape (..., 3, 3); batch dimensions broadcast.
        threshold: positive, a Frobenius norm; beyond 2 sqrt 2 it tells no rotations apart. The largest length
            of the gradient.

    Returns:
        Shape (...), at least 0. Smooth where the two are equal.

    Raises:
        ValueError: if `threshold` is not positive and finite, or the last two dimensions of a tensor are not
            (3, 3).
        TypeError: if `estimate` or `truth` is not floating point.

    Source:
        Huber, Ann. Math. Statist. 35 (1964).

    Example:
        >>> import torch, svdrot
        >>> estimate = svdrot.axis_angle_to_matrix(torch.tensor([[0.0, 0.0, 0.1], [torch.pi, 0.0, 0.0]]))
        >>> svdrot.losses.huber_chordal(estimate, torch.eye(3), threshold=0.2)
        tensor([0.0100, 0.5457])
    """
    check_positive("threshold", threshold)
    return losses.huber_chordal(estimate, truth, scalars=(threshold,))


def laplace_geodesic(estimate: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    r"""Return the negative log density of the Laplace distribution of the angle, $\theta / b + \ln Z(b)$.

    The density $e^{-\theta / b} / Z$ is against the uniform measure on SO(3), of which the angle has the
    density $(1 - \cos \theta) / \pi$; with $k = 1 / b$

    $$ Z = \frac 1\pi \int_0^\pi e^{-k \theta} (1 - \cos \theta) d\theta
         = \frac{1 - e^{-k \pi} (1 + 2 k^2)}{\pi k (1 + k^2)}. $$

    A network that predicts the scale beside the rotation learns how far off it is: the best scale is a third
    of the mean angle where that is small.

    Args:
        estimate: rotations, shape (..., 3, 3).
        truth: rotations, shape (..., 3, 3).
        scale: b in radians, shape (...), a tensor; batch dimensions broadcast. Large ones approach the
            uniform distribution; what is not positive and finite gives NaN in its place.

    Returns:
        Nats, shape (...); negative where the density is above the uniform one.

    Raises:
        ValueError: if the last two dimensions of `estimate` or `truth` are not (3, 3).
        TypeError: if an argument is not floating point.

    Source:
        Kendall and Gal, "What Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?",
        NeurIPS 2017, here with the normalizer of SO(3).

    Example:
        >>> import torch, svdrot
        >>> estimate = svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, 0.3]))
        >>> scale = torch.tensor([0.03, 0.1, 0.3])  # the second is a third of the angle: the best
        >>> svdrot.losses.laplace_geodesic(estimate, torch.eye(3), scale).argmin()
        tensor(1)
    """
    return losses.laplace_geodesic(estimate, truth, scale)
