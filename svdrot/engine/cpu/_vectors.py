"""The writer for CPUs: a graph as a loop over vectors, in LLVM's own language, with nothing left to
recognize.

A block of W rows, one in each lane, is loaded as it lies, dealt out so that entry k of every row is one
vector, computed, collected and stored. What does not lie there row after row goes through a copy of its
block: strided and broadcast arrays, and the last, partial block of a batch. So a result depends neither on
its place in the batch nor on the number of threads.

A kernel has two functions: `rows(words, start, stop)`, and `share(words)`, which any number of threads may
call at a time, each of which takes chunk after chunk of the rows until none is left. `words` are 64-bit:

    next row, chunk, rows          for `share`
    inner                          rows of the inner of two batch dimensions
    scalars                        float64
    of each input                  address, how it lies, its strides: outer, inner, row, column, in numbers
    of each output                 address
"""

import ctypes
import itertools
import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from llvmlite import ir

from svdrot.engine.elementary import BODIES
from svdrot.engine.lowering import lowered
from svdrot.engine.program import Graph
from svdrot.engine.walk import operations

from . import ADDRESS, DENSE, FIELDS, LIES, OUTER, SAME, machine
from ._lanes import Lanes, Value
from ._storage import STORED, Storage

WORD, FLAG, VOID = ir.IntType(64), ir.IntType(1), ir.VoidType()
NEXT, CHUNK, ROWS, INNER, FIRST = range(5)


class Kernel:
    """The machine code of a graph for arrays of certain dtypes."""

    def __init__(
        self, graph: Graph, inputs: Sequence[torch.dtype], outputs: Sequence[torch.dtype], dtype: torch.dtype
    ):
        # Two registers for each number: one computes while the other waits. 4,096 projections take 28 us, not
        # 42, and few kernels are slower for it, none by more than 2 %; four gain nothing.
        self.wide = 2 * machine.register_bytes() // dtype.itemsize
        with machine.LOCK:
            writer = _Writer(graph, inputs, outputs, dtype, self.wide)
            self.engine = machine.load(str(writer.module))
        self.operations = writer.operations  # on a row
        word = ctypes.c_ssize_t
        self.rows = ctypes.CFUNCTYPE(None, ctypes.c_char_p, word, word)(
            self.engine.get_function_address("rows")
        )
        self.entry = self.engine.get_function_address("share")
        self.share = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.entry)
        words = f"4q{graph.scalars}d{len(FIELDS) * len(inputs) + len(outputs)}q"
        self.pack = struct.Struct(f"={words}").pack


class _Writer:
    def __init__(self, graph, inputs, outputs, dtype, wide):
        self.graph, self.dtype, self.wide = graph, dtype, wide
        self.ins = [(d, math.prod(s)) for d, s in zip(inputs, graph.inputs, strict=True)]
        self.outs = [
            (torch.float64 if total else d, 1 if total else len(nodes))
            for d, nodes, total in zip(outputs, graph.outputs, graph.summed, strict=True)
        ]
        self.module = ir.Module()
        self.module.triple = machine.triple()
        self.block = self._block()
        self.copies = {}
        self.rows = self._rows()
        self._share()

    # One block.

    def _block(self) -> ir.Function:
        """W rows that lie one after the other: inputs, outputs, the words, how many of the rows are alive."""
        kinds = [STORED[d].as_pointer() for d, _ in (*self.ins, *self.outs)]
        function = self._function("block", [*kinds, WORD.as_pointer(), WORD], private=True)
        function.attributes.add("noinline")  # which would compile it twice: for whole and for partial blocks
        b: Any = ir.IRBuilder(function.append_basic_block())
        lanes = Lanes(self.module, b, STORED[self.dtype], self.wide)
        *arrays, words, live = function.args
        leaves: dict[Any, Value] = {}
        for i, (dtype, count) in enumerate(self.ins):
            for k, v in enumerate(Storage(lanes, dtype).load(arrays[i], count)):
                leaves[i, k] = v
        for k in range(self.graph.scalars):
            place = b.bitcast(b.gep(words, [WORD(FIRST + k)]), ir.DoubleType().as_pointer())
            number = b.load(place)
            leaves["scalar", k] = lanes.splat(number if lanes.is_double else b.fptrunc(number, lanes.scalar))
        nodes = [n for group in self.graph.outputs for n in group]
        nodes = lowered(nodes, self.dtype, BODIES)
        self.operations = operations(nodes)
        results = lanes.compute(nodes, leaves)
        guarded = [v for (i, _), v in leaves.items() if i in self.graph.guarded]
        results = iter(lanes.spoiled(results, guarded))
        for pointer, (dtype, _), group, total in zip(
            arrays[len(self.ins) :], self.outs, self.graph.outputs, self.graph.summed, strict=True
        ):
            vectors = [next(results) for _ in group]
            if total:
                b.store(self._total(lanes, vectors[0], live), pointer)
            else:
                Storage(lanes, dtype).store(vectors, pointer)
        b.ret_void()
        return function

    def _total(self, lanes: Lanes, v: Value, live: Value) -> Any:
        """The sum over the lanes that are alive, in float64, always in the same order."""
        b, wide = lanes.builder, self.wide
        places = ir.Constant(ir.VectorType(WORD, wide), list(range(wide)))
        first = b.insert_element(ir.Constant(places.type, ir.Undefined), live, ir.IntType(32)(0))
        everywhere = b.shuffle_vector(
            first, first, ir.Constant(ir.VectorType(ir.IntType(32), wide), [0] * wide)
        )
        v = b.select(b.icmp_signed("<", places, everywhere), v, lanes.constant(0.0))
        v = v if lanes.is_double else b.fpext(v, ir.VectorType(ir.DoubleType(), wide))
        while wide > 1:
            wide //= 2
            halves = [
                b.shuffle_vector(
                    v, v, ir.Constant(ir.VectorType(ir.IntType(32), wide), list(range(k, k + wide)))
                )
                for k in (0, wide)
            ]
            v = b.fadd(*halves)
        return b.extract_element(v, ir.IntType(32)(0))

    # All blocks.

    def _rows(self) -> ir.Function:
        function = self._function("rows", [WORD.as_pointer(), WORD, WORD])
        words, start, stop = function.args
        b: Any = ir.IRBuilder(function.append_basic_block("entry"))
        buffers = []
        for dtype, count in (*self.ins, *self.outs):
            room = b.alloca(ir.ArrayType(STORED[dtype], count * self.wide))
            room.align = 64
            buffers.append(b.bitcast(room, STORED[dtype].as_pointer()))
        number = itertools.count(FIRST + self.graph.scalars)
        fields = [[b.load(b.gep(words, [WORD(next(number))])) for _ in FIELDS] for _ in self.ins]
        results = [b.load(b.gep(words, [WORD(next(number))])) for _ in self.outs]
        inner = b.load(b.gep(words, [WORD(INNER)]))
        with loop(b, start, stop, self.wide) as row:
            left = b.sub(stop, row)
            partial = b.icmp_signed("<", left, WORD(self.wide))
            live = b.select(partial, left, WORD(self.wide))
            places = []
            for i, (dtype, count) in enumerate(self.ins):
                places.append(
                    self._place(b, fields[i], buffers[i], dtype, count, i, inner, row, start, stop, partial)
                )
            for k, (dtype, count) in enumerate(self.outs):
                base = b.inttoptr(results[k], STORED[dtype].as_pointer())
                if self.graph.summed[k]:
                    places.append(b.gep(base, [b.sdiv(row, WORD(self.wide))]))
                else:
                    there = b.gep(base, [b.mul(row, WORD(count))])
                    places.append(b.select(partial, buffers[len(self.ins) + k], there))
            b.call(self.block, [*places, words, live])
            with b.if_then(partial):
                for k, (dtype, count) in enumerate(self.outs):
                    if not self.graph.summed[k]:
                        base = b.inttoptr(results[k], STORED[dtype].as_pointer())
                        there = b.gep(base, [b.mul(row, WORD(count))])
                        with loop(b, WORD(0), b.mul(live, WORD(count))) as j:
                            b.store(b.load(b.gep(buffers[len(self.ins) + k], [j])), b.gep(there, [j]))
        b.ret_void()
        return function

    def _place(self, b, fields, buffer, dtype, count, i, inner, row, start, stop, partial) -> Any:
        """Where the rows of an input lie one after the other: where they are, or in a copy."""
        base = b.inttoptr(fields[ADDRESS], STORED[dtype].as_pointer())
        dense = b.icmp_signed("==", fields[LIES], WORD(DENSE))
        there = b.and_(dense, b.not_(partial))
        copied = b.and_(b.icmp_signed("==", fields[LIES], WORD(SAME)), b.icmp_signed("!=", row, start))
        with b.if_then(b.not_(b.or_(there, copied))):
            shape = self.graph.inputs[i]
            sides = (1,) * (2 - len(shape)) + shape
            b.call(self._copy(dtype), [base, buffer, inner, row, stop, *fields[OUTER:], *map(WORD, sides)])
        return b.select(there, b.gep(base, [b.mul(row, WORD(count))]), buffer)

    def _copy(self, dtype: torch.dtype) -> ir.Function:
        """A block of rows, one after the other; past the last row, that once more."""
        kind = STORED[dtype].as_pointer()
        name = f"copy_{STORED[dtype]}"
        if name in self.module.globals:
            return self.module.globals[name]
        function = self._function(name, [kind, kind, *[WORD] * 9], private=True)
        source, target, inner, first, stop, outer_stride, inner_stride, row_stride, column_stride, m, n = (
            function.args
        )
        b: Any = ir.IRBuilder(function.append_basic_block())
        last = b.sub(stop, WORD(1))
        with loop(b, WORD(0), WORD(self.wide)) as lane:
            row = b.add(first, lane)
            row = b.select(b.icmp_signed("<", row, last), row, last)
            there = b.add(b.mul(b.udiv(row, inner), outer_stride), b.mul(b.urem(row, inner), inner_stride))
            here = b.mul(lane, b.mul(m, n))
            with loop(b, WORD(0), m) as i:
                line = b.add(there, b.mul(i, row_stride))
                to = b.add(here, b.mul(i, n))
                with loop(b, WORD(0), n) as j:
                    entry = b.load(b.gep(source, [b.add(line, b.mul(j, column_stride))]))
                    b.store(entry, b.gep(target, [b.add(to, j)]))
        b.ret_void()
        return function

    def _share(self) -> None:
        function = self._function("share", [WORD.as_pointer()])
        (words,) = function.args
        b: Any = ir.IRBuilder(function.append_basic_block("entry"))
        chunk, rows = (b.load(b.gep(words, [WORD(k)])) for k in (CHUNK, ROWS))
        more, work, done = (function.append_basic_block(name) for name in ("more", "work", "done"))
        b.branch(more)
        b.position_at_end(more)
        start = b.atomic_rmw("add", b.gep(words, [WORD(NEXT)]), chunk, "monotonic")
        b.cbranch(b.icmp_signed("<", start, rows), work, done)
        b.position_at_end(work)
        stop = b.add(start, chunk)
        b.call(self.rows, [words, start, b.select(b.icmp_signed("<", stop, rows), stop, rows)])
        b.branch(more)
        b.position_at_end(done)
        b.ret_void()

    def _function(self, name: str, arguments: list[ir.Type], *, private: bool = False) -> ir.Function:
        function = ir.Function(self.module, ir.FunctionType(VOID, arguments), name)
        function.attributes.add("nounwind")
        set.add(
            function.attributes, '"prefer-vector-width"="512"'
        )  # llvmlite knows only names without a value
        if private:
            function.linkage = "private"
        return function


@contextmanager
def loop(b: Any, start: Value, stop: Value, step: int = 1) -> Iterator[Any]:
    """A loop of the builder, from start to stop."""
    before = b.block
    head, body, after = (b.append_basic_block(name) for name in ("head", "body", "after"))
    b.branch(head)
    b.position_at_end(head)
    i = b.phi(WORD)
    i.add_incoming(start, before)
    b.cbranch(b.icmp_signed("<", i, stop), body, after)
    b.position_at_end(body)
    yield i
    i.add_incoming(b.add(i, WORD(step)), b.block)
    b.branch(head)
    b.position_at_end(after)
