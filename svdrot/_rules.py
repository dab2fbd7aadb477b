"""What derivatives of autograd Functions must see through: levels of forward mode, batches in disguise."""

# pyright: reportPrivateImportUsage=false
# torch._add_batch_dim and torch._remove_batch_dim are those of batches in disguise.

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

Rule = Callable[..., Any]

unwrapped = torch._C._functorch.unwrap_if_dead  # pyright: ignore


def is_legacy_batch(t: Tensor) -> bool:
    """Whether `t` is a batch in disguise, as of `is_grads_batched`, without memory of its own."""
    return torch._C._functorch.is_legacy_batchedtensor(t)  # pyright: ignore


def joined(t: Tensor) -> Tensor:
    """Make the first two dimensions one. Not by `flatten`, which batches in disguise do not have."""
    return t.reshape(t.shape[0] * t.shape[1], *t.shape[2:])


def parted(t: Tensor, first: int, second: int) -> Tensor:
    """Make two dimensions of the first one."""
    return t.reshape(first, second, *t.shape[1:])


def batch_first(info: Any, dims: Sequence[int | None], *tensors: Tensor) -> list[Tensor]:
    """Put the dimension of `vmap` in front of each tensor; one without it is repeated."""
    return [
        t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip(tensors, dims, strict=False)
    ]


def forward_rule(jvp: Rule) -> Rule:
    """Let other levels of forward mode see through `jvp(ctx, saved tensors, *tangents)`.

    torch turns forward mode off in there, and with it all levels, to which torch operations would then be
    constants, without a word (pytorch#197867). So it is on, and the tangents of this level are put aside.
    """

    @wraps(jvp)
    def rule(ctx, *tangents):
        with forward_ad._set_fwd_grad_enabled(True):
            kept = [None if t is None else unwrapped(t) for t in ctx.saved_tensors]
            saved = [None if t is None else forward_ad.unpack_dual(t).primal for t in kept]
            return by_vmap(lambda *given: jvp(ctx, saved, *given), tangents)

    return rule


def backward_rule(backward: Rule) -> Rule:
    """Let `backward(ctx, *gradients)` take batches in disguise."""

    @wraps(backward)
    def rule(ctx, *gradients):
        return by_vmap(lambda *given: backward(ctx, *given), gradients)

    return rule


def by_vmap(function: Rule, arguments: Sequence[Any]) -> Any:
    """Call a function; what `is_grads_batched` and `vectorize` batch goes through `torch.func.vmap`.

    The batches of the former have no rules for autograd Functions, and lose derivatives there without a word.
    """
    if torch.compiler.is_compiling():
        return function(*arguments)
    batched = [i for i, t in enumerate(arguments) if isinstance(t, Tensor) and is_legacy_batch(t)]
    if not batched:
        return function(*arguments)
    level = max(_level(arguments[i]) for i in batched)
    batched = [i for i in batched if _level(arguments[i]) == level]
    returned: list[Any] = []  # by the function: None, or something where there is a tensor

    def of_one(*given: Tensor) -> tuple[Tensor, ...]:
        one = [*arguments]
        for i, t in zip(batched, given, strict=True):
            one[i] = t
        found = function(*one)
        found = found if isinstance(found, tuple) else (found,)
        returned[:] = found
        return tuple(t for t in found if t is not None)

    inside = [torch._remove_batch_dim(arguments[i], level, 0, 0) for i in batched]
    results = iter([torch._add_batch_dim(t, 0, level) for t in torch.func.vmap(of_one)(*inside)])
    found = tuple(None if t is None else next(results) for t in returned)
    return found[0] if len(returned) == 1 else found


def _level(t: Tensor) -> int:
    """Find the innermost level at which `t` is a batch: without the dimension of another it has 0 copies."""
    nesting = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    return next(n for n in range(nesting, 0, -1) if torch._remove_batch_dim(t, n, 0, 0).shape[0])
