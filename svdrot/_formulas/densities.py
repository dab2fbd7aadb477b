"""The density of Brownian motion on SO(3), a function of the angle and the time."""

import math

from svdrot.engine.maps import formula
from svdrot.engine.words import atan2, cos, detached, exp, expm1, log, maximum, sin, sqrt, where

from .conversions import SMALL, matrix_to_axis_angle
from .geometry import so3
from .turns import geodesic_distance, relative_turn
from .vectors import choose, dot, length

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


@formula({"location": (3, 3), "value": (3, 3), "tau": ()}, (3,))
def isotropic_gaussian_score(location, value, tau):
    r"""The gradient of the log density along turns of `value` in its own frame: $\partial_\omega \ln f$ times
    the axis of locationᵀ value.

    For large tau, sums of $-2 k \sin k \omega$ over the series, which are $\sin \omega$ times polynomials of
    $\cos \omega$: no axis is asked for. For small tau and $\omega$ up to a right angle the derivatives of the
    terms of `log_heat_kernel` over $\omega$, which are even, times the rotation vector. Beyond, with $c = \pi
    - \omega$, from images $x_k = \omega - 2 \pi k$ in pairs at $c \mp m \pi$ that cancel at c = 0: the
    density is $N / \sin(\omega / 2)$, $N = \sum_k (-1)^k x_k e^{-x_k^2 / 4 \tau}$.
    """
    sine, cosine = relative_turn(location, value)
    sine, cosine = 0.5 * sine, 0.5 * cosine
    w = matrix_to_axis_angle(location.T @ value)
    small = detached(tau) < SWITCH
    t = where(small, tau, SWITCH / 2)
    acute = detached(cosine) > 0.0
    near = choose(acute, w, [0.0, 0.0, 0.0])
    far = choose(acute, [2.0, 0.0, 0.0], w)
    angle = length(far)
    beyond = (_slope_of_images(where(acute, math.pi - 2.0, atan2(length(sine), -cosine)), t) / angle) * far
    close = choose(acute, _even_slope(near, t) * near, beyond)
    return choose(small, close, _slope_of_series(cosine, where(small, 2.0 * SWITCH, tau)) * sine)


def _slope_of_series(cosine, tau):
    """Over the sine."""
    step = exp(-2.0 * tau)
    before, here = 0.0, 1.0  # sin(k angle) / sin(angle)
    sum_of_cosines, k_cosine, k_before = 1.0, cosine, 1.0
    power, decay, series, slope, slopes = 1.0, 1.0, 1.0, 0.0, 0.0
    for l in range(1, HARMONICS + 1):
        power = power * step
        decay = decay * power
        sum_of_cosines = sum_of_cosines + 2.0 * k_cosine
        slopes = slopes - (2.0 * l) * here
        series = series + (2 * l + 1) * decay * sum_of_cosines
        slope = slope + (2 * l + 1) * decay * slopes
        before, here = here, 2.0 * cosine * here - before
        k_before, k_cosine = k_cosine, 2.0 * cosine * k_cosine - k_before
    return slope / series


def _even_slope(w, tau):
    """The derivative over the angle, for a rotation vector up to a right angle and tau below 1."""
    t = maximum(tau, 2.0**-6)  # below which images are nothing, and their terms would overflow
    x = dot(w, w)
    total, slope = 1.0, 0.0
    for k in range(1, IMAGES + 1):
        rate = (math.pi * k) / t
        cosh, sinhc, bend = _hyperbolic(rate * rate * x)
        scale = (-1.0) ** k * 2.0 * exp(-((math.pi * k) ** 2) / t)
        factor = 2.0 * (math.pi * k) * rate
        total = total + scale * (cosh - factor * sinhc)
        slope = slope + scale * (rate * rate) * (sinhc - factor * bend)
    return so3.inverse_second(so3.Angle(w)) - 0.5 / tau + slope / total


def _hyperbolic(square):
    """cosh z, sinh(z) / z and (cosh z - sinh(z) / z) / z², of z²."""
    small = detached(square) < 1.0
    y = where(small, square, 0.0)
    z = sqrt(where(small, 1.0, square))
    grown, shrunk = exp(z), exp(-z)
    cosh = where(small, so3.horner(COSH, y), 0.5 * (grown + shrunk))
    sinhc = where(small, so3.horner(SINHC, y), 0.5 * (grown - shrunk) / z)
    bend = where(small, so3.horner(BEND, y), (cosh - sinhc) / (z * z))
    return cosh, sinhc, bend


COSH = [1 / math.factorial(2 * k) for k in range(10)]
SINHC = [1 / math.factorial(2 * k + 1) for k in range(10)]
BEND = [1 / math.factorial(2 * k + 2) - 1 / math.factorial(2 * k + 3) for k in range(10)]


def _slope_of_images(c, tau):
    """The derivative by the angle at pi - c, for c up to a right angle."""
    half, turn = 0.5 / tau, math.pi * c / tau
    a, b = math.pi - c, math.pi + c
    rest = -expm1(-turn)  # 1 - exp((a² - b²) / 4 tau)
    # N and its derivative, over the first image: where the two of a pair are as far, so are their terms.
    total = a + b * (1.0 - rest)
    slope = rest * (1.0 - half * a * a) + (2.0 * (1.0 - rest)) * turn
    near, far = 3.0 * math.pi - c, 3.0 * math.pi + c
    # (a² - x²) / 4 tau
    both = -2.0 * math.pi * math.pi / tau
    first, second = exp(both + turn), exp(both - 2.0 * turn)
    total = total - near * first - far * second
    # The sum of their slopes, in terms that are 0 at c = 0, whatever is rounded.
    apart = -expm1(-3.0 * turn) * first
    slope = slope - (1.0 - half * far * far) * apart - (6.0 * turn) * first
    return slope / total - 0.5 * sin(0.5 * c) / cos(0.5 * c)
