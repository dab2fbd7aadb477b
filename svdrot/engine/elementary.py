"""The elementary functions as formulas, since a loop over vectors cannot call those of the C library.

Within two units of rounding over the whole range of the arguments, in float32 and float64; beyond `FAR` sin
and cos are as exact as the C library. Derivatives are taken before these bodies go in, and so are exact.
Polynomials are interpolants at Chebyshev points, of 60 digits (the tests of this module make them again)."""

from collections.abc import Callable

from .graph import Node, by_dtype, node
from .words import absolute, floor, where

COEFFICIENTS = {
    "sin": (
        (-0.1666666466231438, 0.008332748270629749, -0.00019587890880412386),
        (
            -0.16666666666666666,
            0.008333333333330948,
            -0.00019841269836758574,
            2.755731610255244e-06,
            -2.5051131845003624e-08,
            1.5918129294866608e-10,
        ),
    ),
    "cos": (
        (0.04166666465950221, -0.0013888303035894866, 2.4547942085071572e-05),
        (
            0.041666666666666664,
            -0.0013888888888888887,
            2.4801587301584645e-05,
            -2.7557319221402824e-07,
            2.087675579108042e-09,
            -1.1470460887609959e-11,
            4.7458719020432915e-14,
        ),
    ),
    "atan": (
        (
            -0.33333331760434554,
            0.1999954031495797,
            -0.14263949753605723,
            0.10743668324830098,
            -0.06451718869358958,
        ),
        (
            -0.3333333333333333,
            0.19999999999999993,
            -0.14285714285711515,
            0.11111111110754406,
            -0.0909090906699066,
            0.07692306735321475,
            -0.06666642004996545,
            0.05881925033877732,
            -0.052580394289794816,
            0.04719381457895137,
            -0.04104381417807643,
            0.03063443323901452,
            -0.013916943217800841,
        ),
    ),
    "expm1": (
        (0.5, 0.16666576989698775, 0.041666554617204574, 0.008363179052722578, 0.0013926183587713494),
        (
            0.5,
            0.1666666666666667,
            0.04166666666666667,
            0.008333333333326136,
            0.0013888888888883748,
            0.00019841269874820627,
            2.4801587325547743e-05,
            2.7557255400206422e-06,
            2.75572736431103e-07,
            2.5105217004720745e-08,
            2.0914686968086876e-09,
        ),
    ),
    "log": (
        (0.6666668504515603, 0.39988778282162807, 0.2958005304318844),
        (
            0.666666666666667,
            0.39999999999899444,
            0.2857142862600327,
            0.22222211130259878,
            0.18182889455674947,
            0.15331710618210773,
            0.14616585424888623,
        ),
    ),
}
HALF_PI = (
    (1.570770263671875, 2.6063062250614166e-05, 6.07710062827671e-11),
    (1.5707963267948912, 5.390302858158031e-15, 8.843720566135701e-29),
)
LN2 = ((0.693115234375, 3.194618329871446e-05), (0.6931471805592082, 7.371002565167799e-13))

FAR = 200.0  # radians: up to here the parts of pi/2 times the quadrant are exact, beyond the C library serves


def _polynomial(name: str, z: Node) -> Node:
    """c0 + c1 z + c2 z^2 + ...; float64 takes more terms than float32."""
    low, high = COEFFICIENTS[name]
    low = low + (0.0,) * (len(high) - len(low))
    result = by_dtype(low[-1], high[-1])
    for pair in reversed([*zip(low, high, strict=True)][:-1]):
        result = result * z + by_dtype(*pair)
    return result


def _split(parts: tuple[tuple[float, ...], tuple[float, ...]]) -> list[Node]:
    return [by_dtype(*pair) for pair in zip(*parts, strict=True)]


def reduced(x: Node) -> tuple[Node, Node]:
    """What is left of an angle up to `FAR` over multiples of pi/2, and how many these are."""
    turns = floor(x * 0.6366197723675814 + 0.5)
    for part in _split(HALF_PI):
        x = x - turns * part
    return x, turns


def _quadrant(r: Node, turns: Node) -> tuple[Node, Node, Node, Node]:
    """sin r and cos r; whether the multiples of pi/2 are odd, or 2 or 3 mod 4."""
    z = r * r
    s = r + r * (z * _polynomial("sin", z))
    c = (1.0 - 0.5 * z) + z * z * _polynomial("cos", z)
    half = floor(turns * 0.5)
    odd = turns - 2.0 * half > 0.5
    lower = half - 2.0 * floor(half * 0.5) > 0.5
    return s, c, odd, lower


def sine_of(r: Node, turns: Node) -> Node:
    """The sine of r and that many times pi/2."""
    s, c, odd, lower = _quadrant(r, turns)
    y = where(odd, c, s)
    return where(lower, -y, y)


def cosine_of(r: Node, turns: Node) -> Node:
    s, c, odd, lower = _quadrant(r, turns)
    y = where(odd, -s, c)
    return where(lower, -y, y)


def sine(x: Node) -> Node:
    return where(absolute(x) <= FAR, sine_of(*reduced(x)), node("far", x, value="sin"))


def cosine(x: Node) -> Node:
    return where(absolute(x) <= FAR, cosine_of(*reduced(x)), node("far", x, value="cos"))


def arctangent(y: Node, x: Node) -> Node:
    """atan of the lesser over the greater, from (low - high) / (high + low) where it is above tan(pi/8)."""
    a, b = absolute(y), absolute(x)
    steep = a > b
    high, low = where(steep, a, b), where(steep, b, a)
    # If one is infinite, the other counts as 0, or stays NaN; two infinities count as equal.
    low = where(high > MAX, where(low > MAX, MAX, low - low), low)
    high = where(high > MAX, MAX, high)
    # Scaled, so that high + low cannot overflow and high tan(pi/8) is no subnormal number.
    k = where(high > BIG, 0.25, where(high < SMALL, 2.0**64, 1.0))
    high, low = high * k, low * k
    above = low > high * 0.41421356237309503
    q = where(above, low - high, low) / where(high > 0.0, where(above, high + low, high), high + 1.0)
    z = q * q
    r = q + q * (z * _polynomial("atan", z))
    r = where(above, 0.7853981633974483 + r, r)
    r = where(steep, 1.5707963267948966 - r, r)
    r = where(x < 0.0, 3.141592653589793 - r, r)
    return where(y < 0.0, -r, r)


MAX = by_dtype(3.4028234663852886e38, 1.7976931348623157e308)
BIG, SMALL = by_dtype(1e38, 1e308), by_dtype(1e-30, 1e-290)


def _exponential(x: Node) -> tuple[Node, Node]:
    """e^r - 1 and k of x = r + k ln 2. Beyond the range of numbers on either side nothing changes."""
    top, bottom = by_dtype(90.0, 720.0), by_dtype(-106.0, -760.0)
    x = where(x > top, top, where(x < bottom, bottom, x))
    k = floor(x * 1.4426950408889634 + 0.5)
    r = x
    for part in _split(LN2):
        r = r - k * part
    return r + r * r * _polynomial("expm1", r), k


def exponential(x: Node) -> Node:
    p, k = _exponential(x)
    return node("ldexp", 1.0 + p, k)


def exponential_minus_one(x: Node) -> Node:
    p, k = _exponential(x)
    one = node("ldexp", 1.0, k)
    return where(k > 120.0, node("ldexp", 1.0 + p, k), node("ldexp", p, k) + (one - 1.0))


def logarithm(x: Node) -> Node:
    """log m + k ln 2 for x = m 2^k, with m in [sqrt 1/2, sqrt 2)."""
    return _special(x, _logarithm(x, 0.0))


def _logarithm(x: Node, correction: Node | float) -> Node:
    tiny = x < by_dtype(1.1754943508222875e-38, 2.2250738585072014e-308)
    shift = by_dtype(24.0, 53.0)
    scaled = where(tiny, x * by_dtype(2.0**24, 2.0**53), x)
    k = node("exponent", scaled)
    m = node("mantissa", scaled)  # in [1, 2)
    upper = m > 1.4142135623730951
    m = where(upper, 0.5 * m, m)
    k = where(upper, k + 1.0, k) - where(tiny, shift, 0.0)
    f = m - 1.0
    s = f / (2.0 + f)
    half, z = 0.5 * f * f, s * s
    high, low = _split(LN2)
    # f - f^2/2 + s (f^2/2 + 2 s^2 / 3 + ...), the small terms first.
    return k * high - ((half - (s * (half + z * _polynomial("log", z)) + (k * low + correction))) - f)


def _special(x: Node, result: Node) -> Node:
    result = where(x > 0.0, result, where(x < 0.0, NAN, where(x > -1.0, -INFINITY, x)))
    return where(x > MAX, INFINITY, result)


NAN, INFINITY = by_dtype(float("nan"), float("nan")), by_dtype(float("inf"), float("inf"))


def logarithm_of_one_plus(x: Node) -> Node:
    """log u for u = 1 + x as rounded, and what the rounding lost over u."""
    u = 1.0 + x
    big = u > 1e15
    lost = where(big, 0.0, x - (u - 1.0))
    return where(u > MAX, INFINITY, where(u > 0.0, _logarithm(u, lost / u), _special(u, u)))


BODIES: dict[str, Callable[..., Node]] = {
    "sin": sine,
    "cos": cosine,
    "atan2": arctangent,
    "exp": exponential,
    "expm1": exponential_minus_one,
    "log": logarithm,
    "log1p": logarithm_of_one_plus,
}
