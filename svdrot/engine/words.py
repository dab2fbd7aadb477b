"""The words of formulas beside the operators of Python; each leaves a node."""

from .graph import Node, node


def where(condition, x, y):
    """x where the condition holds, y elsewhere: both are computed, only the chosen one has a derivative."""
    if not isinstance(condition, (Node, bool)):
        raise TypeError(f"`where` takes a condition, such as x > 0; got {type(condition).__name__}")
    return node("where", condition, x, y)


def maximum(x, y):
    """The larger; y if either is NaN. Between two symbols, in place of `max`."""
    return where(x > y, x, y)


def minimum(x, y):
    """The smaller; y if either is NaN."""
    return where(x < y, x, y)


def detached(x):
    """x, as a constant to derivatives."""
    return node("detached", x)


def once(x, why):
    """x, of which nobody may take a derivative, because of what is said."""
    return node("once", x, value=why)


def absolute(x):
    return node("abs", x)


def sqrt(x):
    return node("sqrt", x)


def root(x):
    """The square root of what is not negative, with zero derivatives at zero."""
    some = x > 0.0
    return where(some, sqrt(where(some, x, 1.0)), detached(x))


def floor(x):
    return node("floor", x)


def sin(x):
    return node("sin", x)


def cos(x):
    return node("cos", x)


def atan2(y, x):
    return node("atan2", y, x)


def exp(x):
    return node("exp", x)


def expm1(x):
    return node("expm1", x)


def log(x):
    return node("log", x)


def log1p(x):
    return node("log1p", x)
