"""LLVM code of the CPU kernels, by numba.

A module of kernels has their signatures, `KERNELS`, their `HELPERS`, and a `vocabulary`, against which all of
these are compiled: they are never called as such. If need be it has the `FORMULAS` they use, and how many
vectors their loops take at a time, `INTERLEAVE`, or that they are `EXACT`: computed as written.
"""
# pyright: reportPrivateImportUsage=false

import math
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numba
import torch
from llvmlite import ir

from svdrot._formulas import projection

from . import simd, threads

SCALARS = {torch.float32: numba.float32, torch.float64: numba.float64}

# Neither nnan nor ninf: a NaN must stay in its own lane. The numpy error model, because a test for division
# by zero is a way out of the loop, and LLVM vectorises no such loop (measured: 6 times slower).
OPTIONS: Any = {"fastmath": {"contract", "nsz", "arcp", "reassoc", "afn"}, "error_model": "numpy"}

# Nobody calls a helper from outside: without the wrappers for that, all is compiled in 8 s instead of 11.
HELPER_OPTIONS: Any = OPTIONS | {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compile(module: Any, kernel: str, dtype: torch.dtype) -> tuple[str, list[str]]:
    """The name that numba gives a kernel of a module, its LLVM code, and that of its entry for threads."""
    exact = {"fastmath": False} if getattr(module, "EXACT", False) else {}
    inline = numba.njit(**HELPER_OPTIONS | exact)
    scalar = SCALARS[dtype]
    words = {"__name__": __name__, "carray": numba.carray, "use_widest_vectors": simd.use_widest_vectors}
    words |= {"sqrt": math.sqrt, "absolute": abs, "where": inline(where), "roughly": inline(roughly)}
    words |= module.vocabulary(dtype, scalar)
    projection.bind(words, inline, getattr(module, "FORMULAS", ()))
    for helper in module.HELPERS:
        words[helper.__name__] = inline(types.FunctionType(helper.__code__, words, helper.__name__))
    function = types.FunctionType(getattr(module, kernel).__code__, words, kernel)
    kinds = {"pointer": numba.types.CPointer(scalar), "wide": numba.types.CPointer(numba.float64)}
    kinds |= {"double": numba.float64, "intp": numba.intp}
    signature = numba.void(*(kinds[kind] for kind in module.KERNELS[kernel]))
    with _interleaving(getattr(module, "INTERLEAVE", {}).get(kernel, 0)):
        compiled = numba.cfunc(signature, **OPTIONS | exact)(function)
    name = compiled.native_name
    return name, [compiled.inspect_llvm(), entry(f"{kernel}_entry", name, module.KERNELS[kernel], dtype)]


def where(condition, x, y):
    return x if condition else y


def roughly(x):
    return x


@contextmanager
def _interleaving(vectors: int) -> Iterator[None]:
    """Let LLVM's vectoriser take so many vectors at a time, as many as it likes if 0."""
    llvm.set_option("", f"-force-vector-interleave={vectors}")
    try:
        yield
    finally:
        llvm.set_option("", "-force-vector-interleave=0")


def entry(name: str, compiled: str, kinds: Sequence[str], dtype: torch.dtype) -> str:
    """LLVM code of the function `name` of a block: it calls the compiled kernel as long as rows are left."""
    word, double = ir.IntType(64), ir.DoubleType()
    scalar = double if dtype == torch.float64 else ir.FloatType()
    types = {"pointer": scalar.as_pointer(), "wide": double.as_pointer(), "double": double, "intp": word}
    module = ir.Module()
    signature = ir.FunctionType(ir.IntType(8).as_pointer(), [types[kind] for kind in kinds])
    kernel = ir.Function(module, signature, compiled)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word.as_pointer()]), name)
    builder = ir.IRBuilder(function.append_basic_block())

    def place(index: int) -> Any:
        return builder.gep(function.args[0], [word(index)])

    def advance(index: int, step: Any) -> Any:
        return builder.atomic_rmw("add", place(index), step, "monotonic")

    def convert(value: Any, kind: str) -> Any:
        if kind == "intp":
            return value
        return (builder.bitcast if kind == "double" else builder.inttoptr)(value, types[kind])

    given = [convert(builder.load(place(threads.ARGUMENTS + k)), kind) for k, kind in enumerate(kinds[:-3])]
    chunk, rows = builder.load(place(threads.CHUNK)), builder.load(place(threads.ROWS))
    own = builder.mul(advance(threads.COME, word(1)), builder.load(place(threads.BYTES)))
    scratch = convert(builder.add(builder.load(place(threads.SCRATCH)), own), kinds[-3])
    take, work, done = (function.append_basic_block() for _ in range(3))
    builder.branch(take)
    builder.position_at_end(take)
    start = advance(threads.NEXT, chunk)
    builder.cbranch(builder.icmp_signed("<", start, rows), work, done)
    builder.position_at_end(work)
    end = builder.add(start, chunk)
    end = builder.select(builder.icmp_signed("<", end, rows), end, rows)
    builder.call(kernel, [*given, scratch, start, end])
    builder.branch(take)
    builder.position_at_end(done)
    builder.ret_void()
    return str(module)
