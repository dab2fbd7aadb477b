"""The density of Brownian motion on SO(3), a function of the angle and the time."""

import math

from svdrot.engine.maps import formula
from svdrot.engine.words import cos, detached, exp, log, sin, where

from .conversions import SMALL
from .turns import geodesic_distance

# Where the two series change over. At tau = 1 the first term left out of either is below 1e-22.
SWITCH = 1.0
HARMONICS = 6
IMAGES = 2


@formula({"angle": (), "tau": ()}, ())
def log_heat_kernel(angle, tau):
    r"""ln f, $f(\omega) = \sum_l (2l + 1) e^{-l(l + 1) \tau} \sin((l + 1/2) \omega) / \sin(\omega / 2)$, the
    density against the uniform measure after the time tau of the heat equation $\partial_\tau f = \Delta f$.

    For small tau its Poisson sum, over images at $\omega - 2 \pi k$, the terms of k and -k taken together:
    $\sqrt\pi \tau^{-3/2} e^{\tau / 4} \frac{\omega / 2}{\sin(\omega / 2)} e^{-\omega^2 / 4 \tau} (1 + \sum_{k
    > 0} (-1)^k 2 e^{-\pi^2 k^2 / \tau} [\cosh z_k - \frac{2 \pi^2 k^2}{\tau} \frac{\sinh z_k}{z_k}])$ with
    $z_k = \pi k \omega / \tau$. Source: Nikolayev and Savyolova, Textures and Microstructures 29 (1997);
    Leach et al., "Denoising Diffusion Probabilistic Models on SO(3) for Rotational Alignment" (2022), tau =
    epsilon^2.
    """
    small = detached(tau) < SWITCH
    t = where(small, tau, SWITCH / 2)
    gaussian = 0.5 * math.log(math.pi) - 1.5 * log(t) + t / 4.0 - angle * angle / (4.0 * t)
    near = gaussian - log(sinc(0.5 * angle)) + log(images(angle, t))

    # exp(-l (l + 1) t), of which two that follow differ by the factor exp(-2 t l); and the sum of
    # 2 cos(k angle) over |k| <= l, by Chebyshev's recurrence.
    step = exp(-2.0 * where(small, 2.0 * SWITCH, tau))
    cosine = cos(angle)
    before, here, character, power, decay, series = 1.0, cosine, 1.0, 1.0, 1.0, 1.0
    for l in range(1, HARMONICS + 1):
        power = power * step
        decay = decay * power
        character = character + 2.0 * here
        series = series + (2 * l + 1) * decay * character
        before, here = here, 2.0 * cosine * here - before
    return where(small, near, log(series))


def sinc(x):
    """sin(x) / x."""
    small = detached(x * x) < SMALL
    series = where(small, x * x, 0.0)
    away = where(small, 1.0, x)
    return where(small, 1.0 - series * (1 / 6 - series / 120.0), sin(away) / away)


@formula({"angle": (), "tau": ()}, ())
def images(angle, tau):
    """The sum over images, over its first term: 1 near zero, 2 at pi, for small tau."""
    total = 1.0
    for k in range(1, IMAGES + 1):
        z = (math.pi * k) * angle / tau
        # exp(-z) sinh(z) / z
        small = detached(z) < 0.5
        x, y = where(small, z, 0.0), where(small, 0.5, z)
        x2 = x * x
        series = 1.0 + x2 / 6.0 * (
            1.0 + x2 / 20.0 * (1.0 + x2 / 42.0 * (1.0 + x2 / 72.0 * (1.0 + x2 / 110.0)))
        )
        sinhc = where(small, exp(-x) * series, (1.0 - exp(-2.0 * y)) / (2.0 * y))
        scale = (-1.0) ** k * exp(z - (math.pi * k) ** 2 / tau)
        total = total + scale * (1.0 + exp(-2.0 * z) - (2.0 * math.pi * k) ** 2 / tau * sinhc)
    return total


@formula({"location": (3, 3), "value": (3, 3), "tau": ()}, ())
def log_isotropic_gaussian(location, value, tau):
    return log_heat_kernel(geodesic_distance(location, value), tau)
