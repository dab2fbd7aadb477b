"""The words of formulas beside the operators of Python; each leaves a node."""

from typing import Any

from .graph import Node, node


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where the condition holds, y elsewhere: both are computed, only the chosen one has a derivative."""
    if not isinstance(condition, (Node, bool)):
        raise TypeError(f"`where` takes a condition, such as x > 0; got {type(condition).__name__}")
    return node("where", condition, x, y)


def maximum(x: Any, y: Any) -> Any:
    """The larger; y if either is NaN. Between two symbols, in place of `max`."""
    return where(x > y, x, y)


def minimum(x: Any, y: Any) -> Any:
    """The smaller; y if either is NaN."""
    return where(x < y, x, y)


def detached(x: Any) -> Any:
    """x, as a constant to derivatives."""
    return node("detached", x)


def once(x: Any, why: str) -> Any:
    """x, of which nobody may take a derivative, because of what is said."""
    return node("once", x, value=why)


def roughly(x: Any) -> Any:
    """x, to four roundings where a device has its reciprocal or root that way in a tenth of the operations.

    Of k / y, k / sqrt(y) and sqrt(y) with y > 0 on GPUs, in float32. Everywhere else x itself.
    """
    return node("roughly", x)


def nothing_up_to(order: int, x: Any) -> Any:
    """0, of an x that is 0; derivatives are zero up to this order, and the next one is not finite.

    It marks what a recorded formula does not have, where nobody could raise an error. Torch operations only.
    """
    return node("nothing", x, value=order)


def absolute(x: Any) -> Any:
    return node("abs", x)


def sqrt(x: Any) -> Any:
    return node("sqrt", x)


def root(x: Any) -> Any:
    """The square root of what is not negative, with zero derivatives at zero."""
    some = x > 0.0
    return where(some, sqrt(where(some, x, 1.0)), detached(x))


def floor(x: Any) -> Any:
    return node("floor", x)


def sin(x: Any) -> Any:
    return node("sin", x)


def cos(x: Any) -> Any:
    return node("cos", x)


def atan2(y: Any, x: Any) -> Any:
    return node("atan2", y, x)


def exp(x: Any) -> Any:
    return node("exp", x)


def expm1(x: Any) -> Any:
    return node("expm1", x)


def log(x: Any) -> Any:
    return node("log", x)


def log1p(x: Any) -> Any:
    return node("log1p", x)
