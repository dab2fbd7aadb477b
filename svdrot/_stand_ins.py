"""What functions take in place of tensors: arrays of numpy, and the symbols of `torch.fx.symbolic_trace`.

Arrays go in as tensors that share their memory, and results come out as arrays. Tensors pay for nothing but a
frame: no argument is looked at before a function has refused one. What takes tensors refuses arrays in its
first lines, and is called once more, with tensors. What is nothing but a map (`svdrot.engine.Map`) takes
arrays as it is.

A function or module that is given a symbol becomes one node of the graph and is not looked into.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

_F = TypeVar("_F", bound=Callable[..., Any])


def takes_arrays(function: _F) -> _F:
    """Let a function of tensors take arrays of numpy for all of them, and return arrays.

    Tensors in its results become arrays, also within tuples, lists and dictionaries; of no dimensions,
    numbers of numpy. What has a class of its own stays: a `Transform` holds tensors, and its methods take
    arrays. Tensors and arrays in one call are refused, as are lists of numbers.
    """

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        try:
            return function(*args, **named)
        except Exception:
            if not has_arrays((*args, *named.values())):
                raise
        return through(function, *args, **named)

    return cast(_F, call)


def has_arrays(values: Iterable[Any]) -> bool:
    """Whether there are arrays among arguments, or in lists that are, all of which tensors can stand for."""
    parts = [part for value in values for part in (value if type(value) in (list, tuple) else (value,))]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    return bool(arrays) and not any(isinstance(part, Tensor) or why_not(part) for part in parts)


def through(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """What a function of tensors makes of arrays, as arrays."""
    found = function(*map(as_tensors, args), **{name: as_tensors(value) for name, value in named.items()})
    return _arrays(found)


def as_tensors(value: Any) -> Any:
    """Arrays as tensors, also those in a list or tuple; anything else as it is."""
    if isinstance(value, np.ndarray) and not why_not(value):
        return _tensor(value)
    if type(value) in (list, tuple):
        return type(value)([as_tensors(part) for part in value])
    return value


def why_not(value: Any) -> str | None:
    """What keeps an array from being a tensor, or None."""
    if isinstance(value, np.ma.MaskedArray):
        return "whose mask would be lost: fill it, or select"
    if isinstance(value, np.ndarray) and (value.dtype.kind not in "biuf" or value.dtype.itemsize > 8):
        return f"of {value.dtype}, which tensors cannot hold"
    return None


def _tensor(array: np.ndarray) -> Tensor:
    """The same numbers as a tensor, in the same memory where torch can do that without a warning."""
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    plain = native.flags.writeable and all(stride >= 0 for stride in native.strides)
    return torch.from_numpy(native if plain else native.copy())


def _arrays(value: Any) -> Any:
    """Tensors as arrays, also those within; bfloat16, which numpy does not have, as float32."""
    if isinstance(value, Tensor):
        found = value.detach().cpu()
        return (found.float() if found.dtype == torch.bfloat16 else found).numpy()[()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_arrays, value))
    if type(value) in (list, tuple):
        return type(value)([_arrays(part) for part in value])
    if type(value) is dict:
        return {name: _arrays(part) for name, part in value.items()}
    return value


# Symbols -------------------------------------------------------------------------------------------------


def is_symbol(x: Any) -> bool:
    """Whether `x` stands for a tensor in `torch.fx.symbolic_trace`; whose class torch imports late."""
    return not isinstance(x, Tensor) and hasattr(x, "tracer") and hasattr(x, "node")


def leaf(function: Callable[..., Any], x: Any, *arguments: Any, **options: Any) -> Any:
    """Make a call of `function` a node; it must be found by its name in its module."""
    return x.tracer.create_proxy("call_function", function, (x, *arguments), options)


def is_inner(module: nn.Module, x: Any) -> bool:
    """Whether `module` is part of what is traced; the whole cannot be a node of itself."""
    return is_symbol(x) and x.tracer.root is not module


def inner(module: nn.Module, x: Any, *arguments: Any) -> Any:
    """Make a call of `module` a node."""
    return x.tracer.create_proxy("call_module", x.tracer.path_of_module(module), (x, *arguments), {})
