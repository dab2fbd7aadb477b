"""The writer for everything else: a graph as torch operations, for any device, exporters, tracers and
autograd.

They are elementwise, so that neither autocast nor TF32 touches them, and any batch shapes broadcast.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from svdrot._rules import by_vmap

from . import memory
from .graph import Node, Operation
from .lowering import INFIX, lowered, with_constants
from .program import Program, find, free_name, program
from .walk import ordered

WRITTEN = {
    **INFIX,
    "div": "{} / {}",
    "where": "where({}, {}, {})",
    "detached": "{}.detach()",
    "once": "{}",
    "roughly": "{}",
    **{
        name: f"torch.{name}({{}})"
        for name in ("abs", "sqrt", "floor", "sin", "cos", "exp", "expm1", "log", "log1p")
    },
    "atan2": "atan2({}, {})",
}


def run(
    name: str,
    scalars: Sequence[float],
    x: Sequence[Tensor],
    dtypes: Sequence[torch.dtype],
    differentiable: bool = False,
    recorded: bool = False,
) -> list[Tensor]:
    """The outputs of a program, by its name, in these dtypes; the last of them is what to compute in.

    What autograd shall look through, `differentiable`, has operations with a derivative of their own as such.
    What is `recorded` cannot; there they are formulas with that derivative (see `Operation`).
    """
    *results, dtype = dtypes
    key = _key(name, dtype, differentiable, recorded)
    compute, inputs, shapes, summed, guarded = getattr(_WRITTEN, key)
    entries, batch = [], []
    for value, shape in zip(x, inputs, strict=True):
        value = value.to(dtype)
        rows = value.unbind(-2) if len(shape) == 2 else [value]
        entries += [entry for row in rows for entry in row.unbind(-1)] if shape else rows
        batch.append(entries[-1])
    numbers = [_tensor(float(s), batch[0]) for s in scalars]
    flat = [_tensor(number, batch[0]) for number in compute(*entries, *numbers)]
    common = torch.broadcast_shapes(*[t.shape for t in (*flat, *batch)])
    flat = [t.expand(common) for t in flat] if len(common) else flat
    outputs = []
    for shape, total, result in zip(shapes, summed, results, strict=True):
        count = math.prod(shape)
        output = _stacked(flat[:count], shape)
        flat = flat[count:]
        if not shape and not guarded:
            output = output.clone()  # not an argument itself, nor one number for many
        for i in guarded:
            output = output + _poison(x[i], len(inputs[i]), dtype)[(..., *[None] * len(shape))]
        outputs.append(output.sum(dtype=torch.float64) if total else output.to(result))
    return outputs


def _stacked(entries: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Not by `unflatten`, which batches in disguise (`is_grads_batched`) do not have."""
    if len(shape) < 2:
        return torch.stack(entries, -1) if shape else entries[0]
    columns = shape[-1]
    rows = [torch.stack(entries[k : k + columns], -1) for k in range(0, len(entries), columns)]
    return torch.stack(rows, -2)


def _tensor(number: Any, like: Tensor) -> Tensor:
    return (
        number if isinstance(number, Tensor) else torch.full((), number, dtype=like.dtype, device=like.device)
    )


def _poison(value: Tensor, dims: int, dtype: torch.dtype) -> Tensor:
    """NaN for the elements of which one number is not finite, 0 for the others.

    By 0 / 0: torch 2.8 cannot store a program with the constant NaN.
    """
    finite = value.isfinite()
    good = (finite.all(tuple(range(-dims, 0))) if dims else finite).to(dtype)
    return good / good - 1.0


@memory.unseen_by_dynamo
def has_own_derivatives(name: str) -> bool:
    """Whether torch operations of the formula would have other derivatives."""
    return any(n.op == "call" for n in ordered(n for group in find(name).graph.outputs for n in group))


# By key, a function of all entries and scalars that gives those of the outputs, and what is known of them.
# Dynamo looks it up; it must not see how it was made. Attributes, since of a dictionary Dynamo keeps what was
# there when it first looked; without dots, which would be attributes of attributes to it.
_WRITTEN = SimpleNamespace()


@memory.unseen_by_dynamo
def _key(name: str, dtype: torch.dtype, differentiable: bool, recorded: bool) -> str:
    how = ", differentiable" * differentiable + ", recorded" * recorded
    key = f"{name} in {dtype}{how}".replace(".", " ")
    if not hasattr(_WRITTEN, key):
        setattr(_WRITTEN, key, _function(name, dtype, differentiable, recorded))
    return key


def _function(name: str, dtype: torch.dtype, differentiable: bool, recorded: bool) -> tuple:
    graph = find(name).graph
    entries = [(i, k) for i, shape in enumerate(graph.inputs) for k in range(math.prod(shape))]
    leaves = [*entries, *(("scalar", k) for k in range(graph.scalars))]
    outputs = [n for group in graph.outputs for n in group]
    outputs = with_constants(outputs, dtype) if differentiable else lowered(outputs, dtype, {}, recorded)
    compute = written({leaf: f"x{j}" for j, leaf in enumerate(leaves)}, outputs, dtype)
    return compute, graph.inputs, graph.shapes, graph.summed, graph.guarded


def written(names: dict[Any, str], outputs: Sequence[Node], dtype: torch.dtype) -> Callable[..., tuple]:
    """A Python function of torch operations, straight down."""
    known: dict[int, str] = {}
    like = next(iter(names.values()))  # a tensor; constants are plain numbers
    words: dict[str, Any] = {"torch": torch, "where": _where(dtype), "atan2": _atan2}
    lines = []
    for n in ordered(outputs):
        args = [known[id(a)] for a in n.args]
        if n.op == "input":
            known[id(n)] = names[n.value]
        elif n.op == "constant":
            known[id(n)] = repr(n.value) if math.isfinite(n.value) else f'float("{n.value}")'
        elif n.op == "item":
            known[id(n)] = f"{args[0]}[{n.value}]"
        elif n.op == "nothing":
            known[id(n)] = f"t{len(lines)}"
            lines.append(f"t{len(lines)} = {args[0]}.pow({n.value + 0.5})")
        else:
            known[id(n)] = f"t{len(lines)}"
            if n.op == "call":
                word = f"call{len(lines)}"
                words[word] = _caller(n.value)
                lines.append(f"t{len(lines)} = {word}({', '.join((like, *args))})")
            else:
                lines.append(f"t{len(lines)} = {WRITTEN[n.op].format(*args)}")
    results = "".join(f"{known[id(o)]}, " for o in outputs)
    body = "".join(f"    {line}\n" for line in (*lines, f"return ({results})"))
    exec(f"def compute({', '.join(names.values())}):\n{body}", words)
    return words["compute"]


def _where(dtype: torch.dtype) -> Callable[..., Tensor]:
    # Between two constants torch.where answers in the default dtype.
    return lambda condition, x, y: torch.where(condition, x, y).to(dtype)


def _atan2(y: Tensor | float, x: Tensor | float) -> Tensor:
    like = y if isinstance(y, Tensor) else x
    assert isinstance(like, Tensor)  # of two constants it is one more
    return torch.atan2(_tensor(y, like), _tensor(x, like))


def _caller(operation: Operation) -> Callable[..., Any]:
    """An operation on entries, with its own derivative."""
    from . import door

    own = _own_program(operation)

    def call(like: Tensor, *entries: Any) -> Any:
        entries = tuple(_tensor(e, like) for e in entries)
        batch = torch.broadcast_shapes(*[e.shape for e in entries])
        stacked = torch.stack([e.expand(batch) for e in entries], -1)  # batches in disguise do not broadcast
        return by_vmap(lambda x: door.apply(own, (), (x,))[0], (stacked,)).unbind(-1)

    return call


@cache
def _own_program(operation: Operation) -> Program:
    shapes = [(operation.arguments,)], [(operation.count,)]
    return program(lambda x: operation(*x), *shapes, name=free_name(f"operation {operation.name}"))
