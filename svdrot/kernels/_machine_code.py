"""The CPU kernels as machine code: compiled by numba when new, kept on disk, and loaded by llvmlite."""

import ctypes
import hashlib
import os
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import torch

from . import (
    _neighbour_tiles,
    _pair_tiles,
    _polar_row_tiles,
    _polar_tiles,
    _pose_tiles,
    _robust_tiles,
    _step_tiles,
    _sum_tiles,
    _threads,
    _tiles,
)

TILES = (
    _tiles,
    _polar_tiles,
    _polar_row_tiles,
    _pair_tiles,
    _pose_tiles,
    _neighbour_tiles,
    _sum_tiles,
    _step_tiles,
    _robust_tiles,
)
MODULES = {kernel: module for module in TILES for kernel in module.KERNELS}
SOURCES = ("_tiles", "so3", "pairs", "_simd", "_panels", "_numba", "_threads")
SHARED = tuple(Path(__file__).with_name(f"{name}.py") for name in SOURCES)

# What numba puts around a kernel names these, for exceptions that no kernel raises. One name that the loader
# does not find, and it takes address 0 for others as well: memset and sin, which LLVM calls.
_ABORT = ctypes.cast(ctypes.CDLL(None if os.name == "posix" else "msvcrt").abort, ctypes.c_void_p).value
for _name in ("NRT_MemInfo_call_dtor", "numba_gil_ensure", "numba_gil_release"):
    if llvm.address_of_symbol(_name) is None:
        llvm.add_symbol(_name, _ABORT)


@cache
def load(kernel: str, dtype: torch.dtype) -> Callable[..., None]:
    """A kernel for one dtype, as a C function; the interpreter lock is released while it runs.

    Its attributes are what `_threads` shares a batch by: `block`, and the function of a block by its address
    and for Python, `entry` and `work`.
    """
    code = _read(kernel, dtype)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    types = {"pointer": ctypes.c_void_p, "wide": ctypes.c_void_p}
    types |= {"double": ctypes.c_double, "intp": ctypes.c_ssize_t}
    kinds = MODULES[kernel].KERNELS[kernel]
    prototype = ctypes.CFUNCTYPE(None, *(types[kind] for kind in kinds))
    function: Any = prototype(engine.get_function_address(kernel))
    function.block, function.entry = _threads.block(kinds), engine.get_function_address(f"{kernel}_entry")
    function.work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function.entry)
    function.engine = engine  # which owns the code
    return function


def _read(kernel: str, dtype: torch.dtype) -> bytes:
    file = _folder() / f"{kernel}-{str(dtype).removeprefix('torch.')}-{_fingerprint(MODULES[kernel])}.o"
    if file.exists():
        return file.read_bytes()
    code = _compile(kernel, dtype)
    try:
        new = file.with_suffix(f".{os.getpid()}")
        new.write_bytes(code)
        new.replace(file)
    except OSError as error:
        message = f"{file} cannot be written ({error}): every process will compile for some seconds."
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return code


def _compile(kernel: str, dtype: torch.dtype) -> bytes:
    from . import _numba  # 0.2 s that a process which finds the machine code on disk does not spend

    name, (code, entry) = _numba.compile(MODULES[kernel], kernel, dtype)
    module = llvm.parse_assembly(code)
    module.link_in(llvm.parse_assembly(entry))
    module.get_function(name).name = kernel
    return _target_machine().emit_object(module)


@cache
def _target_machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        jit=True,
        codemodel="jitdefault",
    )


@cache
def _fingerprint(module: ModuleType) -> str:
    """Of all that its machine code depends on: an edit of a formula, another compiler, another CPU."""
    digest = hashlib.sha256()
    for source in (*SHARED, Path(str(module.__file__))):
        digest.update(source.read_bytes())
    constants = {name: value for name, value in vars(module).items() if isinstance(value, int)}
    digest.update(repr(constants).encode())  # some of which another module has
    digest.update(f"{llvmlite.__version__} {sys.platform} {llvm.get_host_cpu_name()}".encode())
    digest.update(llvm.get_host_cpu_features().flatten().encode())
    return digest.hexdigest()[:16]


@cache
def _folder() -> Path:
    """Beside the source, as Python's own byte code, or else in the user's cache."""
    own = Path(__file__).parent / "__pycache__"
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "svdrot"
    for folder in (own, user):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return user
