"""What the kernels of `_writer` need and Triton lacks: angles of any size, and the bits of numbers."""

import triton
import triton.language as tl

from svdrot.engine.elementary import FAR as _FAR

# The first 1,216 bits of 2/pi in words of 64, after one of zeros.
_DIGITS = (
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424d"
    "d2e006492eea09d1921cfe1deb1cb129a73ee88235f52ebb4484e99c7026b45f7e413991d639"
    "835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b74f46"
    "3f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6bab"
)
TWO_OVER_PI = tl.constexpr((0, *(int(_DIGITS[k : k + 16], 16) for k in range(0, len(_DIGITS), 16))))
FAR = tl.constexpr(_FAR)


@triton.jit
def far(x, WORDS: tl.constexpr):
    """What is left of angles beyond `FAR` over multiples of pi/2, and how many these are modulo 4.

    By Payne and Hanek: of x = m 2^e with a whole m of 53 bits, m times 192 bits of 2/pi, beginning with the
    first whose product with 2^e is below 4, is what matters of x 2/pi, to 2^-137. In how many words
    of the table that may begin depends on the largest number. A block without such an angle skips all of it.
    """
    size = tl.abs(x)
    some = (size > FAR) & (size < float("inf"))
    rest, turns = x - x, x - x  # NaN of what is not finite
    if tl.max(some.to(tl.int32), 0) > 0:
        bits = tl.abs(x.to(tl.float64)).to(tl.uint64, bitcast=True)
        m = (bits & 0xFFFFFFFFFFFFF) | 0x10000000000000
        start = (bits >> 52).to(tl.int32) - 1013
        word, shift = start >> 6, (start & 63).to(tl.uint64)
        a = tl.full(x.shape, TWO_OVER_PI[0], tl.uint64)
        b = tl.full(x.shape, TWO_OVER_PI[1], tl.uint64)
        c = tl.full(x.shape, TWO_OVER_PI[2], tl.uint64)
        d = tl.full(x.shape, TWO_OVER_PI[3], tl.uint64)
        for k in tl.static_range(1, WORDS):
            a = tl.where(word == k, tl.full(x.shape, TWO_OVER_PI[k], tl.uint64), a)
            b = tl.where(word == k, tl.full(x.shape, TWO_OVER_PI[k + 1], tl.uint64), b)
            c = tl.where(word == k, tl.full(x.shape, TWO_OVER_PI[k + 2], tl.uint64), c)
            d = tl.where(word == k, tl.full(x.shape, TWO_OVER_PI[k + 3], tl.uint64), d)
        back = 63 - shift
        a, b, c = (
            (a << shift) | (b >> 1 >> back),
            (b << shift) | (c >> 1 >> back),
            (c << shift) | (d >> 1 >> back),
        )
        # The product, of which what is beyond 192 bits are whole turns.
        low, middle, high = m * c, m * b, m * a
        middle += tl.umulhi(m, c)
        high += tl.umulhi(m, b) + (middle < m * b).to(tl.uint64)
        # A fraction of a quarter turn in [-1/2, 1/2), and how many of these.
        first, second = (high << 2) | (middle >> 62), (middle << 2) | (low >> 62)
        quarters = (high >> 62) + (first >> 63)
        fraction = first.to(tl.int64, bitcast=True).to(tl.float64) * 5.421010862427522e-20
        fraction += second.to(tl.float64) * 2.938735877055719e-39
        sign = tl.where(x < 0.0, -1.0, 1.0)
        rest = tl.where(some, (fraction * 1.5707963267948966).to(x.dtype) * sign, rest)
        turns = tl.where(some, quarters.to(x.dtype) * sign, turns)
    return rest, turns


# The bits of numbers: sign, exponent, fraction ------------------------------------------------------------


@triton.jit
def exponent(x):
    """k of x = m 2^k for a normal positive x and m in [1, 2)."""
    if x.dtype == tl.float64:
        return ((x.to(tl.int64, bitcast=True) >> 52) - 1023).to(tl.float64)
    else:
        return ((x.to(tl.int32, bitcast=True) >> 23) - 127).to(tl.float32)


@triton.jit
def mantissa(x):
    if x.dtype == tl.float64:
        return ((x.to(tl.int64, bitcast=True) & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000).to(
            tl.float64, bitcast=True
        )
    else:
        return ((x.to(tl.int32, bitcast=True) & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)


@triton.jit
def ldexp(x, k):
    """x 2^k, in two steps: 2^k itself may be too large or too small."""
    whole = tl.where(k == k, k, 0.0).to(tl.int32)  # NaN is no integer
    half = whole >> 1
    return x * _power_of_two(half, x.dtype) * _power_of_two(whole - half, x.dtype)


@triton.jit
def _power_of_two(k, dtype: tl.constexpr):
    if dtype == tl.float64:
        return ((k.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)
    else:
        return ((k + 127) << 23).to(tl.float32, bitcast=True)


# Reciprocals and roots, to four roundings ------------------------------------------------------------------


@triton.jit
def reciprocal(x):
    """1 / x for a normal x > 0, by the root of that, which all machines have; NaN for a negative one."""
    root = tl.rsqrt(x)
    return root * root


@triton.jit
def about_sqrt(x):
    """The square root of x >= 0; of what is below the normal numbers less than it should be."""
    return x * tl.rsqrt(tl.maximum(x, 1.1754943508222875e-38, propagate_nan=tl.PropagateNan.ALL))
