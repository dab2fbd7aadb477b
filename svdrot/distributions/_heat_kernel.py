"""The density of Brownian motion on SO(3), a function of the angle and the time."""

import math

import torch
from torch import Tensor

# Where the two series change over. At tau = 1 the first term left out of either is below 1e-22.
SWITCH = 1.0
HARMONICS = 6
IMAGES = 2


def log_heat_kernel(angle: Tensor, tau: Tensor) -> Tensor:
    r"""ln f, $f(\omega) = \sum_l (2l + 1) e^{-l(l + 1) \tau} \sin((l + 1/2) \omega) / \sin(\omega / 2)$, the
    density against the uniform measure after the time tau of the heat equation $\partial_\tau f = \Delta f$.

    For small tau its Poisson sum, over images at $\omega - 2 \pi k$, the terms of k and -k taken together:
    $\sqrt\pi \tau^{-3/2} e^{\tau / 4} \frac{\omega / 2}{\sin(\omega / 2)} e^{-\omega^2 / 4 \tau} (1 + \sum_{k
    > 0} (-1)^k 2 e^{-\pi^2 k^2 / \tau} [\cosh z_k - \frac{2 \pi^2 k^2}{\tau} \frac{\sinh z_k}{z_k}])$ with
    $z_k = \pi k \omega / \tau$. Source: Nikolayev and Savyolova, Textures and Microstructures 29 (1997);
    Leach et al., "Denoising Diffusion Probabilistic Models on SO(3) for Rotational Alignment" (2022), tau =
    epsilon^2.
    """
    small = tau < SWITCH
    t = torch.where(small, tau, SWITCH / 2)
    gaussian = 0.5 * math.log(math.pi) - 1.5 * t.log() + t / 4 - angle**2 / (4 * t)
    near = gaussian - torch.sinc(angle / (2 * math.pi)).log() + images(angle, t).log()

    t = torch.where(small, 2 * SWITCH, tau)
    character, series = torch.ones_like(angle), torch.ones_like(angle * t)
    for l in range(1, HARMONICS + 1):
        character = character + 2 * torch.cos(l * angle)
        series = series + (2 * l + 1) * torch.exp(-l * (l + 1) * t) * character
    return torch.where(small, near, series.log())


def images(angle: Tensor, t: Tensor) -> Tensor:
    """The sum over images, over its first term: 1 near zero, 2 at pi, for small t."""
    total = torch.ones_like(angle * t)
    for k in range(1, IMAGES + 1):
        z = math.pi * k * angle / t
        # exp(-z) sinh(z) / z
        small = z < 0.5
        x = torch.where(small, z, 0.5)
        x2 = x * x
        series = 1 + x2 / 6 * (1 + x2 / 20 * (1 + x2 / 42 * (1 + x2 / 72 * (1 + x2 / 110))))
        y = torch.where(small, 0.5, z)
        sinhc = torch.where(small, torch.exp(-x) * series, -torch.expm1(-2 * y) / (2 * y))
        scale = (-1) ** k * torch.exp(z - (math.pi * k) ** 2 / t)
        total = total + scale * (1 + torch.exp(-2 * z) - (2 * math.pi * k) ** 2 / t * sinhc)
    return total
