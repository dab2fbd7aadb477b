"""The words of formulas over the whole range of their arguments, and where their polynomials come from."""

import math

import mpmath
import numpy as np
import pytest
import torch
from engine_cases import EXACT
from torch import Tensor

from svdrot.engine import elementary, words
from svdrot.engine.maps import Map

DTYPES = [torch.float32, torch.float64]

WORDS = {
    "sin": EXACT.sin,
    "cos": EXACT.cos,
    "exp": EXACT.exp,
    "expm1": EXACT.expm1,
    "log": EXACT.log,
    "log1p": lambda x: EXACT.log1p(x) if abs(x) < 1e-3 else EXACT.log(1 + x),
    "atan2": EXACT.atan2,
}
MAPS = {
    name: Map(
        getattr(words, name),
        {"y": (), "x": ()} if name == "atan2" else {"x": ()},
        (),
        guarded=False,
        name=f"the word {name}",
    )
    for name in (*WORDS, "sqrt", "floor", "absolute")
}


# Arguments --------------------------------------------------------------------------------------------------


def uniform(generator: torch.Generator, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(count, dtype=torch.float64, generator=generator)


def of_every_exponent(generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A random number of each, the subnormal ones among them."""
    info = torch.finfo(dtype)
    least, greatest = math.log2(info.smallest_normal * info.eps), math.log2(info.max)
    half = torch.arange(round(least), round(greatest), dtype=torch.float64) / 2
    return ((1 + uniform(generator, len(half))) * torch.exp2(half) * torch.exp2(half)).to(dtype)


def with_neighbors(x: Tensor) -> Tensor:
    """Two numbers on either side of each, too."""
    found, up, down = [x], x, x
    for _ in range(2):
        up, down = up.nextafter(torch.full_like(x, math.inf)), down.nextafter(torch.full_like(x, -math.inf))
        found += [up, down]
    return torch.cat(found)


def arguments(name: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Numbers of all magnitudes and both signs, many where the result is moderate, and some of every hard
    kind."""
    generator, info = torch.Generator().manual_seed(0), torch.finfo(dtype)
    everywhere = of_every_exponent(generator, dtype)
    if name == "atan2":
        return pairs(generator, everywhere)
    if name in ("sin", "cos"):
        # Where a quadrant ends, where the polynomials are farthest from zero, and where the C library begins.
        # Of the C library no more is asked than it gives: for the float64 closest to a multiple of pi/2,
        # 6381956970095103 x 2^797, that of glibc 2.36 is 8 units off.
        turns = torch.cat([torch.arange(1, 280) / 2, torch.tensor([10.0**k + 1 for k in range(3, 15)])])
        hard = [turns.double() * (math.pi / 2), [elementary.FAR, 1e4, 1e10, 1e22, 1e30, 1e300]]
        ranges = [(0, 10), (0, 2 * elementary.FAR), (1e3, 1e6)]
    elif name in ("exp", "expm1"):
        ends = [
            math.log(info.max),
            math.log(info.smallest_normal),
            math.log(info.smallest_normal) + math.log(info.eps),
        ]
        hard = [ends, (torch.arange(-40, 40) + 0.5) * math.log(2)]
        ranges = [(-1, 1), (1.02 * ends[2], 1.02 * ends[0])]
    else:
        powers = torch.exp2(torch.arange(-40, 41, dtype=torch.float64) / 2)
        hard = [powers, powers - 1, -powers, [1.0, 2.0**24, 2.0**53, 1e15]]
        ranges = [(0, 4), (0.9, 1.1), (-1, 1), (-0.01, 0.01)]
    hard = torch.cat([torch.as_tensor(h, dtype=torch.float64) for h in hard]).to(dtype)
    easy = torch.cat([uniform(generator, 300, *ends) for ends in ranges]).to(dtype)
    x = torch.cat([with_neighbors(hard[hard.isfinite()]), easy, everywhere])
    return (torch.cat([x, -x]),)


def pairs(generator: torch.Generator, everywhere: Tensor) -> tuple[Tensor, Tensor]:
    dtype, info = everywhere.dtype, torch.finfo(everywhere.dtype)
    count = len(everywhere)
    # Any two; two of one magnitude; near the ends of the polynomial; the smallest and the largest numbers.
    similar = (everywhere.double() * 10 ** uniform(generator, count, -2, 2)).to(dtype)
    slopes = torch.tensor([1.0, math.sqrt(2) - 1, math.sqrt(2) + 1]).double()
    unit = uniform(generator, 600).reshape(200, 3)
    near = (unit * slopes * (1 + 4 * info.eps * uniform(generator, 3, -1, 1))).to(dtype).flatten()
    whole = torch.arange(8, dtype=dtype) * (info.smallest_normal * info.eps)
    ends = torch.tensor([info.smallest_normal, 1.0, info.max / 2, info.max], dtype=dtype)
    ends = torch.cat([whole, ends, math.sqrt(0.5) * ends])
    y = torch.cat([everywhere, similar, near, ends.repeat(len(ends))])
    x = torch.cat(
        [everywhere.flip(0), everywhere, unit.to(dtype).flatten(), ends.repeat_interleave(len(ends))]
    )
    defined = y.isfinite() & ((y != 0) | (x != 0))
    y, x = torch.cat([y[defined], y[defined]]), torch.cat([x[defined], -x[defined]])
    return torch.where(torch.arange(len(y)) % 2 == 0, y, -y), x


# Errors -----------------------------------------------------------------------------------------------------

UNITS = 2.0  # of rounding: eps times the result, or the least number where that is more


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", WORDS)
def test_words_are_exact_to_two_units_of_rounding(name, dtype):
    info, x = torch.finfo(dtype), arguments(name, dtype)
    # What is rounded to infinity: half a unit beyond the largest number.
    limit = EXACT.mpf(info.max) * (1 + EXACT.mpf(info.eps) / 4)
    least = EXACT.mpf(info.smallest_normal) * EXACT.mpf(info.eps)
    worst, finite = (0.0, ()), 0
    for *numbers, found in zip(*[t.tolist() for t in x], MAPS[name](*x).tolist(), strict=True):
        try:
            exact = WORDS[name](*map(EXACT.mpf, numbers))
        except (ValueError, ZeroDivisionError):
            exact = EXACT.nan
        if isinstance(exact, EXACT.mpc) or exact != exact:
            assert math.isnan(found) or numbers == [0.0], numbers
        elif abs(exact) > limit:
            assert found == math.copysign(math.inf, exact), numbers
        else:
            finite += 1
            units = abs(found - exact) / max(abs(exact) * EXACT.mpf(info.eps), least)
            worst = (float(units), numbers) if not units <= worst[0] else worst
    assert worst[0] <= UNITS, f"{worst[0]:.2f} units at {worst[1]}"
    assert finite > 500


@pytest.mark.parametrize("name", WORDS)
def test_words_in_float32_against_float64(name):
    """Half a million numbers, evenly among all float32; of sin and cos, up to where the C library begins."""
    top = elementary.FAR if name in ("sin", "cos") else torch.finfo(torch.float32).max
    last = int(torch.tensor(top).view(torch.int32))
    x = torch.linspace(0, last, 250_001, dtype=torch.float64).to(torch.int32).view(torch.float32)
    x = torch.cat([x, -x])
    pair = (x, x.roll(1001) * x.roll(77).clamp(-3, 3)) if name == "atan2" else (x,)
    found, exact = MAPS[name](*pair).double(), getattr(torch, name)(*[t.double() for t in pair])
    info = torch.finfo(torch.float32)
    unit = (exact.abs() * info.eps).clamp(min=info.smallest_normal * info.eps)
    inside = exact.abs() <= info.max
    inside &= ((pair[0] != 0) | (pair[-1] != 0)) & pair[-1].isfinite()
    assert ((found - exact).abs() / unit)[inside].max() <= UNITS
    assert inside.sum() > 200_000


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["sqrt", "floor", "absolute"])
def test_words_that_machines_have_are_correctly_rounded(name, dtype):
    x = torch.cat(
        [*arguments("log", dtype), torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan]).to(dtype)]
    )
    with np.errstate(invalid="ignore"):
        exact = getattr(np, name)(x.numpy())  # torch.sqrt of 2.13 is not
    np.testing.assert_array_equal(MAPS[name](x).numpy(), exact)


# Special values ---------------------------------------------------------------------------------------------

INF, NAN = math.inf, math.nan
SPECIAL = {
    "sin": [(0.0, 0.0), (INF, NAN), (-INF, NAN), (NAN, NAN)],
    "cos": [(0.0, 1.0), (INF, NAN), (-INF, NAN), (NAN, NAN)],
    "exp": [(0.0, 1.0), (INF, INF), (-INF, 0.0), (NAN, NAN), (1e4, INF), (-1e4, 0.0)],
    "expm1": [(0.0, 0.0), (INF, INF), (-INF, -1.0), (NAN, NAN), (1e4, INF), (-1e4, -1.0)],
    "log": [(1.0, 0.0), (0.0, -INF), (-0.0, -INF), (INF, INF), (-INF, NAN), (-1.0, NAN), (NAN, NAN)],
    "log1p": [(0.0, 0.0), (-1.0, -INF), (INF, INF), (-INF, NAN), (-2.0, NAN), (NAN, NAN)],
    "sqrt": [(0.0, 0.0), (-0.0, 0.0), (INF, INF), (-1.0, NAN), (-INF, NAN), (NAN, NAN)],
    "floor": [(-0.5, -1.0), (-2.0, -2.0), (INF, INF), (-INF, -INF), (NAN, NAN)],
    "absolute": [(-0.0, 0.0), (-INF, INF), (NAN, NAN)],
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(name, dtype):
    """The sign of a zero aside, which formulas do not keep."""
    x, exact = torch.tensor(SPECIAL[name], dtype=torch.float64).unbind(-1)
    torch.testing.assert_close(MAPS[name](x.to(dtype)).double(), exact, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_angle_of_infinities_and_zeros(dtype):
    """As in C, but that zeros have no sign."""
    info = torch.finfo(dtype)
    values = [0.0, info.smallest_normal, 1.0, info.max, INF, NAN]
    values += [-v for v in values]
    points = [(y, x) for y in values for x in values]
    y, x = torch.tensor(points, dtype=dtype).unbind(-1)
    exact = [math.atan2(y + 0.0, x + 0.0) for y, x in points]
    exact = torch.tensor(
        [abs(e) if y == 0 else e for e, (y, _) in zip(exact, points, strict=True)], dtype=torch.float64
    )
    found = MAPS["atan2"](y, x)
    torch.testing.assert_close(
        found, exact.to(dtype), rtol=UNITS * info.eps, atol=info.smallest_normal * info.eps, equal_nan=True
    )


# Tables -----------------------------------------------------------------------------------------------------

MANY = mpmath.mp.clone()
MANY.dps = 60


def odd_series(function, first: int):
    """(f(x) / x - first) / x^2, of z = x^2."""
    return lambda z: (function(MANY.sqrt(z)) / MANY.sqrt(z) - first) / z


# Of each polynomial the function, the interval, and the numbers of terms for float32 and float64.
HALF_LN2, MARGIN = MANY.log(2) / 2, MANY.mpf("1.0001")
POLYNOMIALS = {
    "sin": (odd_series(MANY.sin, 1), (0, (MANY.pi / 4) ** 2), (3, 6)),
    "cos": (lambda z: (MANY.cos(MANY.sqrt(z)) - 1 + z / 2) / z**2, (0, (MANY.pi / 4) ** 2), (3, 7)),
    "atan": (odd_series(MANY.atan, 1), (0, (MANY.sqrt(2) - 1) ** 2 * MARGIN), (5, 13)),
    # (e^x - 1 - x) / x^2, which is 1/2 in the middle.
    "expm1": (lambda x: MANY.hyp1f1(1, 3, x) / 2, (-HALF_LN2 * MARGIN, HALF_LN2 * MARGIN), (5, 11)),
    "log": (
        odd_series(lambda s: MANY.log((1 + s) / (1 - s)), 2),
        (0, ((MANY.sqrt(2) - 1) / (MANY.sqrt(2) + 1)) ** 2 * MARGIN),
        (3, 7),
    ),
}


@pytest.mark.parametrize("name", elementary.COEFFICIENTS)
def test_polynomials_are_interpolants_at_chebyshev_points(name):
    function, (low, high), terms = POLYNOMIALS[name]
    for count, found in zip(terms, elementary.COEFFICIENTS[name], strict=True):
        places = [(1 + MANY.cos(MANY.pi * (2 * k + 1) / (2 * count))) / 2 for k in range(count)]
        points = [low + (high - low) * p for p in places]
        powers = MANY.matrix([[z**j for j in range(count)] for z in points])
        solved = MANY.lu_solve(powers, MANY.matrix([function(z) for z in points]))
        assert [float(c) for c in solved] == list(found)


@pytest.mark.parametrize("k, dtype", [(0, np.float32), (1, np.float64)], ids=["float32", "float64"])
def test_multiples_of_the_parts_of_pi_and_ln2_are_exact(k, dtype):
    """Of all parts but the last, for every multiple there is; together they are pi/2 and ln 2."""
    limits = np.finfo(dtype)
    turns = math.ceil(elementary.FAR * 2 / math.pi)
    steps = math.ceil(math.log2(limits.max) - math.log2(limits.smallest_subnormal))
    for exact, parts, most in (
        (MANY.pi / 2, elementary.HALF_PI[k], turns),
        (MANY.log(2), elementary.LN2[k], steps),
    ):
        assert all(float(dtype(part)) == part for part in parts[:-1])
        for part in parts[:-1]:
            assert all(MANY.mpf(float(dtype(n) * dtype(part))) == n * MANY.mpf(part) for n in range(most + 1))
        # Of a multiple of all parts the error is below half a unit of the last one's products.
        assert abs(sum(map(MANY.mpf, parts)) - exact) * most < float(limits.eps) * parts[-1] * most
