"""Steps that stay on SO(3), along velocities and scores."""

import torch
from torch import Tensor

from svdrot._checks import as_number, check_floating
from svdrot._formulas import turns
from svdrot._stand_ins import takes_arrays


@takes_arrays
def euler_step(rotation: Tensor, velocity: Tensor, step: Tensor | float) -> Tensor:
    r"""Return rotations after a step at constant velocity, $R \exp(h [v]_\times)$.

    Args:
        rotation: shape (..., 3, 3).
        velocity: in the frame of the rotation, radians for a unit of time, shape (..., 3).
        step: h, a number or a tensor of shape (...). Batch dimensions broadcast.

    Returns:
        Rotations (..., 3, 3), orthonormal to rounding after any number of steps. Differentiable.

    Raises:
        ValueError: if a shape is wrong, or batch dimensions do not broadcast.
        TypeError: if a tensor is not floating point, or `step` neither one nor a number.

    Source:
        Hairer, Lubich and Wanner, "Geometric Numerical Integration" (2006), section IV.8 (Lie-Euler).

    Example:
        >>> import torch, svdrot
        >>> rotation = torch.eye(3)
        >>> for _ in range(10):
        ...     rotation = svdrot.flows.euler_step(rotation, torch.tensor([0.0, 0.0, 1.0]), 0.1)
        >>> round(float(svdrot.rotation_angle(rotation)), 5)
        1.0
    """
    check_floating("rotation", rotation)
    check_floating("velocity", velocity)
    return turns.euler_step(rotation, velocity, as_number("step", step, rotation, velocity))


@takes_arrays
def probability_flow_step(
    rotation: Tensor, score: Tensor, scale: Tensor | float, next_scale: Tensor | float
) -> Tensor:
    r"""Return rotations a step nearer to the data, by the probability flow: without noise.

    As noise of the scale $\sigma$ diffuses, densities follow the flow of velocity $-\frac12 s\, d\sigma^2$
    with the score s: this is a step of Euler's back, from `scale` to `next_scale`.

    Args:
        rotation: shape (..., 3, 3).
        score: of the density of the scale `scale`, at the rotation and in its frame, shape (..., 3).
        scale: sigma in radians, a number or a tensor of shape (...).
        next_scale: the scale that the step goes to, of the same kind. Batch dimensions broadcast.

    Returns:
        Rotations (..., 3, 3), orthonormal to rounding. Differentiable.

    Raises:
        ValueError: if a shape is wrong, or batch dimensions do not broadcast.
        TypeError: if a tensor is not floating point, or a scale neither one nor a number.

    Source:
        Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021,
        section 4.3; De Bortoli et al., NeurIPS 2022, arXiv 2202.02763.

    Example:
        >>> import torch, svdrot
        >>> noisy = svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, 0.2]))
        >>> at = svdrot.distributions.IsotropicGaussian(torch.eye(3), torch.tensor(0.1))
        >>> nearer = svdrot.flows.probability_flow_step(noisy, at.score(noisy), 0.1, 0.09)
        >>> round(float(svdrot.rotation_angle(nearer)), 2)
        0.18
    """
    check_floating("rotation", rotation)
    check_floating("score", score)
    scales = [as_number(n, v, rotation, score) for n, v in (("scale", scale), ("next_scale", next_scale))]
    return turns.probability_flow_step(rotation, score, *scales)


@takes_arrays
def reverse_diffusion_step(
    rotation: Tensor,
    score: Tensor,
    scale: Tensor | float,
    next_scale: Tensor | float,
    noise: Tensor | None = None,
) -> Tensor:
    r"""Return rotations a step nearer to the data, by the reverse of the diffusion: with noise.

    It turns by $(\sigma^2 - \sigma'^2) s + \sqrt{\sigma^2 - \sigma'^2}\, z$, for the score s and normal z.

    Args:
        rotation: shape (..., 3, 3).
        score: of the density of the scale `scale`, at the rotation and in its frame, shape (..., 3).
        scale: sigma in radians, a number or a tensor of shape (...).
        next_scale: the scale that the step goes to, at most `scale`. Batch dimensions broadcast.
        noise: z, shape (..., 3). Default: drawn from torch's global generator.

    Returns:
        Rotations (..., 3, 3), orthonormal to rounding. Differentiable. Of a larger `next_scale` there is no
        noise.

    Raises:
        ValueError: if a shape is wrong, or batch dimensions do not broadcast.
        TypeError: if a tensor is not floating point, or a scale neither one nor a number.

    Source:
        Anderson, "Reverse-time diffusion equation models", Stoch. Proc. Appl. 12 (1982); De Bortoli et al.,
        NeurIPS 2022, arXiv 2202.02763, algorithm 1.

    Example:
        >>> import torch, svdrot
        >>> noisy = svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, 0.2]))
        >>> at = svdrot.distributions.IsotropicGaussian(torch.eye(3), torch.tensor(0.1))
        >>> nearer = svdrot.flows.reverse_diffusion_step(noisy, at.score(noisy), 0.1, 0.09, torch.zeros(3))
        >>> round(float(svdrot.rotation_angle(nearer)), 2)
        0.16
    """
    check_floating("rotation", rotation)
    check_floating("score", score)
    scales = [as_number(n, v, rotation, score) for n, v in (("scale", scale), ("next_scale", next_scale))]
    if noise is None:
        batch = torch.broadcast_shapes(rotation.shape[:-2], score.shape[:-1], *[s.shape for s in scales])
        noise = torch.randn(*batch, 3, dtype=score.dtype, device=score.device)
    return turns.reverse_diffusion_step(rotation, score, noise, *scales)
