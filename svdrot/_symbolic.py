"""Leaves of `torch.fx.symbolic_trace`: what is given its proxies becomes one node and is not looked into."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


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
