r"""Newton-Schulz schedules: odd polynomials that, one after the other, send every singular value to 1.

A step $(a_0, a_1, a_2, \dots)$ is the polynomial $a_0 x + a_1 x^3 + a_2 x^5 + \dots$; a schedule is a tuple
of steps, for singular values in [0, 1]. The tables are as published, with the safety factors of their authors
in them. Few of them converge: beside each stands its floor, the distance from 1 below which it does not come.
"""

import math
from functools import lru_cache

import numpy as np

from ._checks import check_whole

Step = tuple[float, ...]
Schedule = tuple[Step, ...]


def shrunk(schedule: Schedule, factor: float, tail: int = 0) -> Schedule:
    """Return a schedule with cushion: p(x / factor) in place of the polynomials p of its steps.

    All but the last `tail` steps are shrunk. Singular values that rounding pushed past the end of their
    interval then do no harm. The first step is shrunk twice, because the norm of the matrix needs the factor,
    too.

    Args:
        schedule: steps, tuples of coefficients.
        factor: at least 1, such as 1.01 for products in bfloat16.
        tail: how many of the last steps stay as they are.

    Returns:
        A schedule of as many steps.

    Example:
        >>> import svdrot
        >>> cubic = svdrot.schedules.CUBIC
        >>> svdrot.schedules.shrunk((cubic, cubic, cubic), factor=2.0, tail=1)
        ((0.375, -0.0078125), (0.75, -0.0625), (1.5, -0.5))
    """
    last = len(schedule) - tail
    steps = [_shrunk(step, factor) if i < last else step for i, step in enumerate(schedule)]
    return (_shrunk(steps[0], factor), *steps[1:])


def _shrunk(step: Step, factor: float) -> Step:
    """Return the step p(x / factor)."""
    return tuple(c / factor ** (2 * i + 1) for i, c in enumerate(step))


# The tables.

CUBIC: Step = (1.5, -0.5)  # converges, 21 steps from 1e-3
TAYLOR: Step = (1.875, -1.25, 0.375)  # converges, 14 steps from 1e-3

# Jordan et al., "Muon" (2024); torch.optim.Muon. Floor 0.32.
KELLER_JORDAN: Schedule = ((3.4445, -4.7750, 2.0315),) * 5

# Jiacheng You (2025). Floor 0.032 after these five, and cycled it grows again.
YOU: Schedule = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)

# Amsel et al., "The Polar Express", arXiv 2505.16932, for singular values from 1e-3. Converges: 1e-5 after
# seven steps, machine precision after eight.
POLAR_EXPRESS: Schedule = shrunk(
    (
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
        (3.3184196573706015, -2.488488024314874, 0.51004894012372),
        (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
        (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
        (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
        TAYLOR,
    ),
    1.01,
    tail=1,
)

# Five steps with more cushion, 1.02, as modded-nanogpt and Dion use them. Floor 0.06.
POLAR_EXPRESS_5: Schedule = (
    _shrunk((8.156554524902461, -22.48329292557795, 15.878769915207462), 1.02),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)

# Grishina, Smirnov, Rakhuba, "Accelerating Newton-Schulz iteration for orthogonalization via Chebyshev-type
# polynomials", arXiv 2506.10935. The minimax sequence for 1e-3; floor 0.04. Without safety: in bfloat16 a
# matrix of rank one goes to 1e22.
CANS: Schedule = (
    (8.4703, -25.1081, 18.6293),
    (4.1828, -3.1087, 0.5806),
    (3.9619, -2.9541, 0.5630),
    (3.2866, -2.4647, 0.5074),
    (2.2737, -1.6447, 0.4162),
)

SCHEDULES: dict[str, Schedule] = {
    "cubic": (CUBIC,) * 22,
    "taylor": (TAYLOR,) * 15,
    "keller_jordan": KELLER_JORDAN,
    "you": YOU,
    "polar_express": POLAR_EXPRESS,
    "polar_express_5": POLAR_EXPRESS_5,
    "cans": CANS,
}


def kim_oh_step(kappa: int) -> Step:
    r"""Return the Taylor step of the polar factor, of degree 2 kappa + 1.

    It is $x \sum_{s \le \kappa} c_s (1 - x^2)^s$ with $c_s = (2s)! / (4^s s!^2)$, and takes a residual
    $\delta = 1 - x^2$ to at most $\delta^{\kappa + 1}$. kappa = 1 is `CUBIC`, kappa = 2 is `TAYLOR`.

    Args:
        kappa: whole number, at least 1.

    Returns:
        The kappa + 1 coefficients of $x, x^3, x^5, \dots$

    Raises:
        ValueError: if `kappa` is not a whole number or less than 1.

    Source:
        Kim and Oh, "Convergence of Muon with Newton-Schulz", ICLR 2026, arXiv 2601.19156.

    Example:
        >>> import svdrot
        >>> svdrot.schedules.kim_oh_step(1)
        (1.5, -0.5)
        >>> svdrot.schedules.kim_oh_step(3)
        (2.1875, -2.1875, 1.3125, -0.3125)
    """
    kappa = check_whole("kappa", kappa)
    total = np.polynomial.Polynomial([0.0])
    for s in range(kappa + 1):
        total += math.comb(2 * s, s) / 4**s * np.polynomial.Polynomial([1.0, -1.0]) ** s
    return tuple(float(c) for c in total.coef)


# The generator.

BULK = 1.6  # largest value of a step that leaves small singular values behind
CLOSE = 0.03  # distance from 1 from which `TAYLOR` finishes


@lru_cache(256)
def newton_schulz_schedule(
    lower: float,
    *,
    cap: float = 0.2,
    safety: float = 1.0005,
    tolerance: float = 1e-9,
    aspect: float | None = None,
) -> Schedule:
    r"""Return a schedule that sends every singular value in [`lower`, 1] to 1 within `tolerance`.

    Each step is the odd quintic that equioscillates about 1 on the upper part [`cap` U, U] of the interval
    [L, U] where the singular values are by then, scaled so that the whole image is centered at 1. Minimax
    polynomials, `cap` = 0, need the fewest steps, but send singular values of well-conditioned matrices
    close to 0 on the way, where rounding turns the singular vectors: their result is orthogonal and wrong.
    The cap limits by how much a step may spread the singular values of the upper part (by 1.56 for 0.2, by
    230 for a minimax step from 1e-3), and costs one step more.

    Args:
        lower: smallest singular value to bring to 1, relative to the largest possible one, in (0, 1].
            Smaller ones grow by some powers of the first coefficients, and stay below 1.
        cap: in [0, 1), the part of the interval where a step does not equioscillate; see above.
        safety: factor >= 1 by which rounding may carry singular values over the end of their interval, before
            any step: 1.0005 for float32, 1.01 to 1.02 for bfloat16. The first steps send what they do not
            expect to infinity.
        tolerance: positive; largest distance from 1 in the end, in exact arithmetic.
        aspect: if given, longer over shorter side of a matrix with independent entries: its singular values
            are in $[\sqrt{a} - 1, \sqrt{a} + 1]$ up to a factor (Marchenko and Pastur), which raises `lower`
            where the ratio of the two, halved for a loose norm, is larger.

    Returns:
        Steps of three coefficients. Equal arguments give the same object.

    Raises:
        ValueError: if an argument is outside its range, or `cap` and `safety` leave no step that gains.

    Source:
        Amsel et al., arXiv 2505.16932, theorem 3.1 (minimax composition); Chen and Chow, "A stable scaling of
        Newton-Schulz for improving the sign function computation of a Hermitian matrix" (2014), scaling.

    Example:
        >>> import torch, svdrot
        >>> schedule = svdrot.schedules.newton_schulz_schedule(1e-2)
        >>> x = torch.tensor([0.01, 0.3, 1.0], dtype=torch.float64)
        >>> for a, b, c in schedule:
        ...     x = a * x + b * x**3 + c * x**5
        >>> torch.allclose(x, torch.ones_like(x), atol=1e-9)
        True
    """
    if not 0 < lower <= 1:
        raise ValueError(f"`lower` must be in (0, 1]; got {lower}.")
    if not 0 <= cap < 1:
        raise ValueError(f"`cap` must be in [0, 1); got {cap}.")
    if not 1 <= safety < 2:
        raise ValueError(f"`safety` must be in [1, 2); got {safety}.")
    if not tolerance > 0:
        raise ValueError(f"`tolerance` must be positive; got {tolerance}.")
    if aspect is not None:
        if not aspect >= 1:
            raise ValueError(f"`aspect` must be at least 1, the longer side over the shorter; got {aspect}.")
        root = math.sqrt(aspect)
        lower = max(lower, (root - 1) / (root + 1) / 2)
    low, high = lower, 1.0
    steps: list[Step] = []
    while max(1 - low, high - 1) > CLOSE:
        step, least, high = _capped(low / safety, high, cap)
        if least <= low:
            raise ValueError(f"With `cap` {cap} and `safety` {safety} no step gains: lower one of them.")
        low = least
        steps.append(_shrunk(step, safety))
    error = max(1 - low, high - 1)
    while error > tolerance or not steps:
        steps.append(TAYLOR)
        error = 2.5 * error**3 * (1 + error)  # 1 - p(1 - e) = 5/2 e³ + ...
    return tuple(steps)


def _capped(low: float, high: float, cap: float) -> tuple[Step, float, float]:
    """Return a step for singular values in [low, high], and their interval after it."""
    a, b, c = _equioscillating(max(low, cap * high), high)
    ends = np.array([low, high, *_extrema(a, b, c, low, high)])
    values = a * ends + b * ends**3 + c * ends**5
    least, most = float(values.min()), float(values.max())
    scale = min(2 / (least + most), max(BULK, most) / most)
    return (float(a * scale), float(b * scale), float(c * scale)), least * scale, most * scale


def _equioscillating(low: float, high: float) -> tuple[float, float, float]:
    """Return the odd quintic nearest to 1 on [low, high] in the maximum norm, by Remez' exchange."""
    x = np.array([low, low + (high - low) / 3, low + 2 * (high - low) / 3, high])
    sign = np.array([1.0, -1.0, 1.0, -1.0])
    a = b = c = error = 0.0
    for _ in range(50):
        before = error
        a, b, c, error = np.linalg.solve(np.stack([x, x**3, x**5, sign], 1), np.ones(4))
        inner = _extrema(a, b, c, low, high)
        if len(inner) < 2 or abs(error - before) <= 1e-15:
            break
        x[1:3] = inner
    return a, b, c


def _extrema(a: float, b: float, c: float, low: float, high: float) -> list[float]:
    """Return where the derivative a + 3 b x² + 5 c x⁴ vanishes between low and high."""
    squares = np.roots([5 * c, 3 * b, a])
    found = sorted(math.sqrt(q.real) for q in squares if abs(q.imag) < 1e-12 and q.real > 0)
    return [x for x in found if low < x < high]
