"""The CPU kernels as machine code: compiled by numba when new, kept on disk, and loaded by llvmlite.

All of it happens under one lock: LLVM sets itself up once, and not for two threads at a time.
"""

import ctypes
import hashlib
import logging
import os
import sys
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import torch

from svdrot._kernels.cpu.loops import (
    agreement,
    cells,
    fits,
    histograms,
    hypotheses,
    icp_steps,
    icp_sums,
    matches,
    neighbors,
    pairs,
    polar_lanes,
    polar_rows,
    poses,
    sweeps,
)
from svdrot.engine.cpu import machine

from . import kept, threads

LOOPS = (
    *(polar_lanes, polar_rows, pairs, neighbors, icp_sums, icp_steps, hypotheses),
    *(cells, sweeps, histograms, matches, agreement, poses, fits),
)
MODULES = {kernel: module for module in LOOPS for kernel in module.KERNELS}
assert len(MODULES) == sum(len(module.KERNELS) for module in LOOPS), "two kernels of one name"

# What numba puts around a kernel names these, for exceptions that no kernel raises. One name that the loader
# does not find, and it takes address 0 for others as well: memset and sin, which LLVM calls.
_ABORT = ctypes.cast(ctypes.CDLL(None if os.name == "posix" else "msvcrt").abort, ctypes.c_void_p).value
for _name in ("NRT_MemInfo_call_dtor", "numba_gil_ensure", "numba_gil_release"):
    if llvm.address_of_symbol(_name) is None:
        llvm.add_symbol(_name, _ABORT)


def load(kernel: str, dtype: torch.dtype) -> Callable[..., None]:
    """A kernel for one dtype, as a C function; the interpreter lock is released while it runs.

    Its attributes are what `threads` shares a batch by: `block`, and the function of a block by its address
    and for Python, `entry` and `work`.
    """
    with machine.LOCK:
        return _loaded(kernel, dtype)


@cache
def _loaded(kernel: str, dtype: torch.dtype) -> Callable[..., None]:
    return _link(kernel, dtype, _code(kernel, dtype))


def _link(kernel: str, dtype: torch.dtype, code: bytes) -> Callable[..., None]:
    engine = llvm.create_mcjit_compiler(
        llvm.parse_assembly(""), machine.target_machine(3)
    )  # and it owns both
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    types = {"pointer": ctypes.c_void_p, "wide": ctypes.c_void_p}
    types |= {"double": ctypes.c_double, "intp": ctypes.c_ssize_t}
    kinds = MODULES[kernel].KERNELS[kernel]
    prototype = ctypes.CFUNCTYPE(None, *(types[kind] for kind in kinds))
    function: Any = prototype(engine.get_function_address(kernel))
    function.block, function.entry = threads.block(kinds), engine.get_function_address(f"{kernel}_entry")
    function.work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function.entry)
    function.engine = engine  # which owns the code
    return function


def _code(kernel: str, dtype: torch.dtype) -> bytes:
    name = f"{kernel}-{str(dtype).removeprefix('torch.')}-{_fingerprint()}"
    code = kept.read(name)
    if code is None:
        code = _compile(kernel, dtype)
        kept.write(name, code)
    return code


def _compile(kernel: str, dtype: torch.dtype) -> bytes:
    from . import by_numba  # 0.2 s that a process which finds the machine code on disk does not spend

    logging.getLogger("svdrot").info("compiling %s, once on this machine", kernel)
    name, (code, entry) = by_numba.compile(MODULES[kernel], kernel, dtype)
    module = llvm.parse_assembly(code)
    module.link_in(llvm.parse_assembly(entry))
    module.get_function(name).name = kernel
    return machine.target_machine(3).emit_object(module)


ROOT = Path(__file__).parents[3]
SOURCES = ("_kernels", "_formulas")  # folders whose every file loops may be made of


@cache
def _fingerprint(root: Path = ROOT) -> str:
    """Digest of all that machine code depends on: the sources, the compilers, the CPU."""
    digest = hashlib.sha256()
    for source in sorted(path for folder in SOURCES for path in (root / folder).rglob("*.py")):
        digest.update(f"\0{source.relative_to(root).as_posix()}\0".encode() + source.read_bytes())
    compilers = sys.version_info[:3], llvmlite.__version__, metadata.version("numba"), llvm.llvm_version_info
    digest.update(f"{compilers} {sys.platform} {llvm.get_host_cpu_name()}".encode())
    digest.update(llvm.get_host_cpu_features().flatten().encode())
    return digest.hexdigest()[:16]
