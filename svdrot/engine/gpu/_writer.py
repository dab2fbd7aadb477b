"""The writer for GPUs: a graph as the source of one Triton kernel, one lane a row, all of it in registers.

The arguments of a kernel:

    of each input, each output     a pointer; an output that is summed has a float64 for each program
    scalars                        two words of 32 bits for each float64: Triton would make it a float32
    rows
    inner                          rows of the inner of two batch dimensions, where there are two
    of each input that is not      its strides: outer where there are two, inner, row and column as far as
    dense                          it has them

Every entry of a row is loaded by itself: the next finds its own in the L1 cache. Stores go through that
cache, so that they are joined (`_store`). The elementary functions are those of `elementary`, as on a CPU:
Triton's own flush subnormal numbers to zero, keep an array in local memory (sin and cos, 32 to 48 bytes) or
are fast rather than exact (exp).
"""

import hashlib
import linecache
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from svdrot.engine import elementary
from svdrot.engine.graph import Node, is_constant, node
from svdrot.engine.lowering import INFIX, lowered
from svdrot.engine.program import Graph, Shape
from svdrot.engine.walk import ordered
from svdrot.engine.words import absolute, where

from . import _words as triton_words

BLOCK = 128  # lanes per program
WIDEST = 16  # entries that are stored as one array

DTYPES = {
    torch.float16: "tl.float16",
    torch.bfloat16: "tl.bfloat16",
    torch.float32: "tl.float32",
    torch.float64: "tl.float64",
}

WRITTEN = {
    **INFIX,
    "where": "tl.where({}, {}, {})",
    "abs": "tl.abs({})",
    "floor": "tl.floor({})",
    "ldexp": "ldexp({}, {})",
    "exponent": "exponent({})",
    "mantissa": "mantissa({})",
}

WORDS = ("far", "ldexp", "exponent", "mantissa", "reciprocal", "about_sqrt")  # of `_words`

# `/` and `tl.sqrt` are approximate in float32, and IEEE's in float64.
ROUNDED = {
    torch.float32: {"div": "tl.div_rn({}, {})", "sqrt": "tl.sqrt_rn({})"},
    torch.float64: {"div": "{} / {}", "sqrt": "tl.sqrt({})"},
}


def kernel(
    name: str,
    graph: Graph,
    inputs: Sequence[torch.dtype],
    outputs: Sequence[torch.dtype],
    dtype: torch.dtype,
    dense: Sequence[bool],
    levels: int,
    index: torch.dtype = torch.int64,
) -> Any:
    """The kernel of a graph for arrays of certain dtypes.

    Args:
        name: of the program.
        graph: what to compute.
        inputs: dtypes of the inputs.
        outputs: dtypes of the outputs.
        dtype: to compute in.
        dense: for each input, whether it lies row after row.
        levels: how many batch dimensions there are, 1 or 2.
        index: in which to divide numbers of rows: a division of int64 takes a hundred instructions.
    """
    word = re.sub(r"\W+", "_", f"map_{name}")[:100]  # a file of Triton's has this name
    arguments, body = _Writer(graph, inputs, outputs, dtype, dense, levels, index).source()
    arrays, numbers = arguments[: len(inputs)], arguments[len(inputs) + len(outputs) :]
    # A kernel for each value or alignment that Triton could make use of would not be faster, but one more.
    plain = f"do_not_specialize={numbers}, do_not_specialize_on_alignment={arrays}"
    lines = [
        f"@triton.jit({plain})",
        f"def {word}({', '.join(arguments)}):",
        *(f"    {line}" for line in body),
    ]
    source = "\n".join(lines) + "\n"
    file = f"<svdrot {word} {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[file] = len(source), None, source.splitlines(True), file  # where Triton looks for it
    words = {"__name__": __name__, "triton": triton, "tl": tl}
    words |= {name: getattr(triton_words, name) for name in WORDS}
    exec(compile(source, file, "exec"), words)
    return words[word]


class _Writer:
    def __init__(self, graph, inputs, outputs, dtype, dense, levels, index):
        self.graph, self.inputs, self.outputs, self.dtype = graph, inputs, outputs, dtype
        self.dense, self.levels, self.index = dense, levels, f"tl.int{8 * index.itemsize}"
        self.arguments = [f"x{i}" for i in range(len(inputs))] + [f"y{i}" for i in range(len(outputs))]
        self.arguments += [f"s{k}_{part}" for k in range(graph.scalars) for part in ("low", "high")]
        self.arguments += ["rows"] + ["inner"] * (levels == 2)
        self.lines: list[str] = []

    def source(self) -> tuple[list[str], list[str]]:
        """The names of the arguments, and the lines of the body."""
        self.lines += [
            f"first = tl.program_id(0).to(tl.int64) * {BLOCK}",
            f"left = tl.minimum(rows - first, {BLOCK}).to(tl.int32)",
            f"lane = tl.arange(0, {BLOCK})",
            "live = lane < left",
            "here = tl.minimum(lane, left - 1)",  # past the last row, that once more
        ]
        if not all(self.dense):
            self.lines.append("row = first + here")
        if self.levels == 2:
            self.lines += [
                f"outer = (row.to({self.index}) // inner).to(tl.int64)",
                "within = row - outer * inner",
            ]
        leaves = self._leaves()
        guarded = [word for (i, _), word in leaves.items() if i in self.graph.guarded]
        if guarded:
            # NaN in lanes where one of them is not finite: 0 times it is.
            self.lines += [f"bad = {guarded[0]} * 0.0", *(f"bad = {x} * 0.0 + bad" for x in guarded[1:])]
        results = self._computed(leaves)
        for j, shape in enumerate(self.graph.shapes):
            count = math.prod(shape)
            words = [f"{next(results)}{' + bad' if guarded else ''}" for _ in range(count)]
            if self.graph.summed[j]:
                self.lines.append(
                    f"tl.store(y{j} + tl.program_id(0), "
                    f"tl.sum(tl.where(live, ({words[0]}).to(tl.float64), 0.0), 0))"
                )
            else:
                self._store(j, words)
        return self.arguments, self.lines

    def _leaves(self) -> dict[Any, str]:
        leaves: dict[Any, str] = {}
        for i, (dtype, shape) in enumerate(zip(self.inputs, self.graph.inputs, strict=True)):
            self.lines.append(f"p{i} = x{i} + {self._row(i, math.prod(shape))}")
            for k, place in enumerate(self._places(i, shape)):
                leaves[i, k] = f"x{i}_{k}"
                self.lines.append(f"x{i}_{k} = {_cast(f'tl.load(p{i}{place})', dtype, self.dtype)}")
        for k in range(self.graph.scalars):
            leaves["scalar", k] = f"s{k}"
            words = f"(s{k}_high.to(tl.int64) << 32) | (s{k}_low.to(tl.int64) & 0xFFFFFFFF)"
            number = f"({words}).to(tl.float64, bitcast=True)"
            self.lines.append(f"s{k} = tl.full([{BLOCK}], {number}, {DTYPES[self.dtype]})")
        return leaves

    def _row(self, i: int, count: int) -> str:
        """Where the row begins."""
        if self.dense[i]:
            return f"first * {count} + here * {count}"
        if self.levels == 1:
            self.arguments.append(f"x{i}_inner")
            return f"row * x{i}_inner"
        self.arguments += [f"x{i}_outer", f"x{i}_inner"]
        return f"outer * x{i}_outer + within * x{i}_inner"

    def _places(self, i: int, shape: Shape) -> Iterator[str]:
        """Where its entries are from there."""
        if self.dense[i]:
            yield from (f" + {k}" for k in range(math.prod(shape)))
            return
        sides = (1,) * (2 - len(shape)) + shape
        strides = ("row", "column")[2 - len(shape) :]
        self.arguments += [f"x{i}_{stride}" for stride in strides]
        for place in [(r, c) for r in range(sides[0]) for c in range(sides[1])]:
            here = [(k, s) for k, s in zip(place, ("row", "column"), strict=True) if k]
            yield "".join(f" + {k} * x{i}_{stride}.to(tl.int64)" for k, stride in here)

    def _constant(self, value: float) -> str:
        # Of a dtype, which a plain number does not have in a `where` of two.
        word = repr(value) if math.isfinite(value) else f'float("{value}")'
        return f"tl.full([{BLOCK}], {word}, {DTYPES[self.dtype]})"

    def _computed(self, leaves: dict[Any, str]) -> Iterator[str]:
        """The words of the outputs."""
        outputs = [n for group in self.graph.outputs for n in group]
        outputs = lowered(outputs, self.dtype, BODIES)
        written = WRITTEN | ROUNDED[self.dtype]
        known: dict[int, str] = {}
        for n in ordered(outputs):
            args = [known[id(a)] for a in n.args]
            if n.op == "input":
                known[id(n)] = leaves[n.value]
                continue
            if n.op in ("detached", "once"):
                known[id(n)] = args[0]
                continue
            if n.op == "far":
                known[id(n)] = f"{args[0]}_{n.value}"
                words = 3 if self.dtype == torch.float32 else 17
                line = f"{args[0]}_rest, {args[0]}_turns = far({args[0]}, {words})"
                if line not in self.lines:
                    self.lines.append(line)
                continue
            if n.op == "roughly":
                value = self._roughly(n.args[0], known)
            elif n.op == "where" and (peak := self._peak(*n.args)):
                value = peak.format(*args[1:])
            elif n.op == "constant":
                value = self._constant(n.value)
            else:
                value = written[n.op].format(*args)
            known[id(n)] = f"t{len(known)}"
            self.lines.append(f"t{len(known) - 1} = {value}")
        return iter([known[id(o)] for o in outputs])

    def _roughly(self, n: Node, known: dict[int, str]) -> str:
        """Reciprocals and roots to four roundings, where that is faster: in float32."""
        if self.dtype == torch.float32 and n.op == "sqrt":
            return f"about_sqrt({known[id(n.args[0])]})"
        if self.dtype == torch.float32 and n.op == "div":
            x, y = n.args
            inverse = f"reciprocal({known[id(y)]})"
            if y.op == "sqrt":
                inverse = f"tl.rsqrt({known[id(y.args[0])]})"
            return inverse if is_constant(x, 1) else f"{known[id(x)]} * {inverse}"
        return known[id(n)]

    def _peak(self, condition: Node, x: Node, y: Node) -> str | None:
        """The larger or the smaller of two, NaN if either is: one instruction in float32."""
        if self.dtype == torch.float64 or condition.op not in ("lt", "le"):
            return None
        if {*map(id, condition.args)} != {id(x), id(y)}:
            return None
        word = "minimum" if condition.args[0] is x else "maximum"
        return f"tl.{word}({{}}, {{}}, propagate_nan=tl.PropagateNan.ALL)"

    def _store(self, j: int, words: list[str]) -> None:
        """Entries by twos, fours, eights, ... as one array, so that a warp stores whole runs of memory:
        stored one entry at a time, each 32-byte sector would go to L2 up to eight times."""
        count = len(words)
        words = [_cast(f"({word})", self.dtype, self.outputs[j]) for word in words]
        start = 0
        while start < count:
            left = count - start
            wide = 1
            while wide < min(left, WIDEST) and (2 * wide <= left or 3 * wide <= 2 * left):  # a quarter empty
                wide *= 2
            if wide == 1:
                self.lines.append(
                    f"tl.store(y{j} + first * {count} + lane * {count} + {start}, {words[start]}, live)"
                )
            else:
                entries = words[start : start + wide]
                entries += entries[-1:] * (wide - len(entries))
                mask = "live[:, None]" + f" & (entry < {count})" * (start + wide > count)
                self.lines += [
                    f"entry = {start} + tl.arange(0, {wide})[None, :]",
                    f"tl.store(y{j} + first * {count} + (lane[:, None] * {count} + entry), "
                    f"{_joined(entries)}.reshape({BLOCK}, {wide}), {mask})",
                ]
            start += wide


def _joined(words: Sequence[str]) -> str:
    """One array of a power of two of them, in order: the last join is of the even and the odd."""
    if len(words) == 1:
        return words[0]
    return f"tl.join({_joined(words[::2])}, {_joined(words[1::2])})"


def _cast(word: str, given: torch.dtype, wanted: torch.dtype) -> str:
    if given == wanted:
        return word
    if wanted.itemsize < 4 and given == torch.float64:
        word = f"{word}.to(tl.float32)"
    return f"{word}.to({DTYPES[wanted]})"


# Angles ---------------------------------------------------------------------------------------------------


def _reduced(x: Node) -> tuple[Node, Node]:
    near = absolute(x) <= elementary.FAR
    rest, turns = elementary.reduced(x)
    return where(near, rest, node("far", x, value="rest")), where(near, turns, node("far", x, value="turns"))


BODIES = elementary.BODIES | {
    "sin": lambda x: elementary.sine_of(*_reduced(x)),
    "cos": lambda x: elementary.cosine_of(*_reduced(x)),
}
