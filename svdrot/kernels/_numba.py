"""LLVM code of the CPU kernels, by numba.

A module of kernels has their signatures, `KERNELS`, their `HELPERS`, how many vectors their loops take at a
time, `INTERLEAVE`, and a `vocabulary`. Like the formulas, kernels and helpers are compiled against that
vocabulary, and never called as such.
"""
# pyright: reportPrivateImportUsage=false

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numba
import torch

from . import _simd

SCALARS = {torch.float32: numba.float32, torch.float64: numba.float64}

# Neither nnan nor ninf: a NaN must stay in its own lane. The numpy error model, because a test for division
# by zero is a way out of the loop, and LLVM vectorises no such loop (measured: 6 times slower).
OPTIONS: Any = {"fastmath": {"contract", "nsz", "arcp", "reassoc", "afn"}, "error_model": "numpy"}

# Nobody calls a helper from outside: without the wrappers for that, all is compiled in 8 s instead of 11.
HELPER_OPTIONS: Any = OPTIONS | {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compile(module: Any, kernel: str, dtype: torch.dtype) -> tuple[str, str]:
    """The name that numba gives a kernel of a module, and its LLVM code."""
    inline = numba.njit(**HELPER_OPTIONS)
    scalar = SCALARS[dtype]
    words = {"__name__": __name__, "carray": numba.carray, "use_widest_vectors": _simd.use_widest_vectors}
    words |= module.vocabulary(dtype, scalar, inline)
    for helper in module.HELPERS:
        words[helper.__name__] = inline(types.FunctionType(helper.__code__, words, helper.__name__))
    function = types.FunctionType(getattr(module, kernel).__code__, words, kernel)
    kinds = {"pointer": numba.types.CPointer(scalar), "wide": numba.types.CPointer(numba.float64)}
    kinds |= {"double": numba.float64, "intp": numba.intp}
    signature = numba.void(*(kinds[kind] for kind in module.KERNELS[kernel]))
    with _interleaving(module.INTERLEAVE.get(kernel, 0)):
        compiled = numba.cfunc(signature, **OPTIONS)(function)
    return compiled.native_name, compiled.inspect_llvm()


@contextmanager
def _interleaving(vectors: int) -> Iterator[None]:
    """Let LLVM's vectoriser take so many vectors at a time, as many as it likes if 0."""
    llvm.set_option("", f"-force-vector-interleave={vectors}")
    try:
        yield
    finally:
        llvm.set_option("", "-force-vector-interleave=0")
