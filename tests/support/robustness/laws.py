"""The laws that every call keeps, and what is found where one does not."""

import dataclasses
import math
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

import svdrot

from .calls import Call, tensors_in
from .draws import state

ROOT = Path(svdrot.__file__).parent

# One answer of all elements; random numbers of which how many are drawn depends on all; errors of others.
TOGETHER = (
    "segment_errors",
    "_pairs",
    "path_lengths",
    ".sample",
    ".rsample",
    ".compute",
    ".validated",
    ".to_scipy",
)


@dataclasses.dataclass(frozen=True)
class Finding:
    law: str
    subject: str
    what: str


def findings(call: Call) -> list[Finding]:
    """The laws that a call breaks."""
    broken: list[Finding] = []

    def note(law: str, what: str) -> None:
        broken.append(Finding(law, call.subject.name, what))

    try:
        torch.manual_seed(call.draw.seed)
        outputs = list(tensors_in(call()))
    except Exception as error:  # of whatever kind: that is what is asked
        complaint = refusal(call, error)
        if complaint:
            note(*complaint)
        _unchanged(call, note)
        return broken
    _unchanged(call, note)
    if call.spoiled is None:
        _kinds(call, outputs, note)
        gradients = _gradients(call, outputs, note)
        if call.repeatable and call.draw.chance(0.4):
            _alone(call, outputs, gradients, note)
        if call.repeatable and call.draw.chance(0.2):
            _layout(call, outputs, note)
        _unchanged(call, note)
    return broken


NAMED = re.compile("`[^`]+`")


def refusal(call: Call, error: Exception) -> tuple[str, str] | None:
    """What is wrong with an error: it should be a TypeError or ValueError, of ours, for bad input alone."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(ROOT))]
    where = f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else "outside"
    said = f"{type(error).__name__} at {where}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
    if not frames or isinstance(error, MemoryError) or "allocate memory" in str(error):
        return None
    if isinstance(error, ImportError) and "pip install" in str(error):
        return None
    if isinstance(error, ValueError) and call.subject.name.endswith((".validated", ".to_scipy")):
        return None  # of torch.distributions and of scipy
    if isinstance(error, TypeError) and call.option:
        return None  # Python's own, of an option of another kind
    if not isinstance(error, TypeError | ValueError):
        return "a result, a TypeError or a ValueError", f"[{call.spoiled or 'good input'}] {said}"
    if not NAMED.search(str(error)):
        return "an error names the argument", f"[{call.spoiled or 'good input'}] {said}"
    if call.spoiled is None and not call.draw.odd:
        return "good input is taken", said
    return None


def _unchanged(call: Call, note: Callable[[str, str], None]) -> None:
    for made in call.draw.made:
        if state(made.tensor) != made.before:
            note("no input is changed", f"{tuple(made.tensor.shape)} {made.tensor.dtype}")
        if made.tensor.is_leaf and made.tensor.grad is not None:
            note("no input is changed", "grad was set")


def _kinds(call: Call, outputs: list[Tensor], note: Callable[[str, str], None]) -> None:
    given = [made.tensor.dtype for made in call.draw.made if made.tensor.is_floating_point()]
    allowed = {*given, torch.float64, torch.float32}
    for output in outputs:
        if output.device.type != "cpu":
            note("results are where the arguments are", str(output.device))
        if output.is_floating_point() and given and output.dtype not in allowed:
            note("results are in a dtype of the arguments", f"{output.dtype} of {given}")


def _gradients(call: Call, outputs: list[Tensor], note: Callable[[str, str], None]) -> dict[int, Tensor]:
    """With respect to every argument, by place; noted where not finite though the arguments are."""
    leaves = [(i, made.tensor) for i, made in enumerate(call.draw.made) if made.tensor.requires_grad]
    ends = [output for output in outputs if output.requires_grad]
    if not leaves or not ends:
        return {}
    generator = torch.Generator().manual_seed(call.draw.seed)
    pulls = [torch.randn(end.shape, generator=generator).to(end.dtype) for end in ends]
    try:
        values = torch.autograd.grad(ends, [leaf for _, leaf in leaves], pulls, allow_unused=True)
    except Exception as error:
        note("a gradient", f"{type(error).__name__}: {str(error).splitlines()[0]}"[:200])
        return {}
    gradients = {i: value for (i, _), value in zip(leaves, values, strict=True) if value is not None}
    draw = call.draw
    usual = (
        draw.sound
        and draw.scale == 1
        and not draw.odd
        and torch.float16 not in {tensor.dtype for tensor in (*(made.tensor for made in draw.made), *outputs)}
    )
    finite = all(made.tensor.isfinite().all() for made in draw.made if not made.tensor.is_meta)
    # Of no element nothing is known: the slope at a matrix without a density times zero is NaN.
    known = any(map(Tensor.numel, ends)) and not any(
        output.isnan().any() for output in outputs if output.is_floating_point()
    )
    if usual and finite and known:
        for value in gradients.values():
            if not value.isfinite().all():
                note("finite gradients of finite input", f"{tuple(value.shape)} {value.dtype}")
                break
    return gradients


def _alone(
    call: Call, outputs: list[Tensor], gradients: dict[int, Tensor], note: Callable[[str, str], None]
) -> None:
    """With NaN in one element of an argument, all others are what they were."""
    batch = call.draw.batch
    size = math.prod(batch)
    if size < 2 or call.subject.name.endswith(TOGETHER):
        return
    places = [
        i
        for i, made in enumerate(call.draw.made)
        if batch
        and made.lead[: len(batch)] == batch
        and made.tensor.is_floating_point()
        and made.tensor.numel()
    ]
    if not places:
        return
    place = call.draw.pick(*places)
    tensor = call.draw.made[place].tensor
    element = call.draw.random.randrange(size)
    odd = tensor.detach().clone(memory_format=torch.contiguous_format)
    part = odd.view(size, -1)[element]
    part[call.draw.random.randrange(len(part))] = call.draw.pick(math.nan, math.inf)
    odd.requires_grad_(tensor.requires_grad)
    arguments = _replaced(call.arguments, {id(tensor): odd})
    try:
        torch.manual_seed(call.draw.seed)
        others = list(tensors_in(call(arguments)))
    except Exception as error:
        note(
            "a NaN is no error",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200],
        )
        return
    kept = torch.arange(size) != element
    for before, after in zip(outputs, others, strict=True):
        if before.shape != after.shape:
            note("a NaN stays in its place", f"shape {tuple(before.shape)} became {tuple(after.shape)}")
        elif before.shape[: len(batch)] == batch:
            a, b = (x.detach().reshape(size, -1)[kept] for x in (before, after))
            if not _alike(call, a, b):
                note("a NaN stays in its place", f"{before.dtype} {tuple(before.shape)}: {_difference(a, b)}")
                return
    if place in gradients and call.draw.sound and call.draw.definite:
        ends = [end for end in others if end.requires_grad]
        generator = torch.Generator().manual_seed(call.draw.seed)
        pulls = [torch.randn(end.shape, generator=generator).to(end.dtype) for end in ends]
        (value,) = torch.autograd.grad(ends, [odd], pulls, allow_unused=True)
        if value is not None:
            a, b = (x.reshape(size, -1)[kept] for x in (gradients[place], value))
            if not _alike(call, a, b):
                note("a NaN stays in its place in gradients", f"{tuple(value.shape)}: {_difference(a, b)}")


def _replaced(value: Any, by: dict[int, Any]) -> Any:
    return _pytree.tree_map(lambda leaf: by.get(id(leaf), leaf), value)


def _alike(call: Call, a: Tensor, b: Tensor) -> bool:
    if not a.is_floating_point():
        return torch.equal(a, b)
    # Of arguments of several dtypes a part of the work is in the least of them, whatever the result has.
    if call.subject.name.endswith("_to_euler") and a.shape[-1:] == (3,):  # pi is -pi
        a, b = (torch.cat((x.sin(), x.cos()), -1) for x in (a, b))
    eps = torch.finfo(torch.float32 if call.draw.mixed and a.dtype.itemsize > 4 else a.dtype).eps
    return torch.allclose(a, b, rtol=1e4 * eps, atol=1e4 * eps, equal_nan=True)


def _difference(a: Tensor, b: Tensor) -> str:
    apart = (a.double() - b.double()).abs().nan_to_num(0)
    largest = apart.amax().item() if apart.numel() else 0
    return f"NaN {int(a.isnan().sum())} became {int(b.isnan().sum())}, apart by {largest:.1e}"


def _layout(call: Call, outputs: list[Tensor], note: Callable[[str, str], None]) -> None:
    """How the arguments lie in memory changes nothing."""
    plain = {
        id(made.tensor): _plain(made.tensor) for made in call.draw.made if isinstance(made.tensor, Tensor)
    }
    if call.draw.scale != 1 or not call.draw.sound or any(output.is_meta for output in outputs):
        return
    if any(made.tensor.dtype.itemsize < 4 for made in call.draw.made):
        return
    torch.manual_seed(call.draw.seed)
    if call.arguments.get("generator") is not None:
        call.arguments["generator"].manual_seed(call.draw.seed)
    again = list(tensors_in(call(_replaced(call.arguments, plain))))
    for before, after in zip(outputs, again, strict=True):
        if before.shape != after.shape or not _alike(call, before.detach(), after.detach()):
            what = _difference(before.detach(), after.detach()) if before.shape == after.shape else "shapes"
            note("layout in memory changes nothing", f"{before.dtype} {tuple(before.shape)}: {what}")
            return


def _plain(value: Tensor) -> Tensor:
    plain = torch.empty(value.shape, dtype=value.dtype)
    return plain.copy_(value.detach()).requires_grad_(value.requires_grad)
