"""Machine code for this CPU, from LLVM's language. All of it happens under one lock: LLVM is set up once, and
not for two threads at a time."""

import ctypes
import os
import threading
from functools import cache
from typing import Any

import llvmlite.binding as llvm

LOCK = threading.RLock()

if hasattr(os, "register_at_fork"):  # a child must not begin in the middle of another thread's compilation
    os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)


def target_machine(level: int = 2) -> llvm.TargetMachine:
    _set_up()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=level,
        jit=True,
        codemodel="jitdefault",
    )


@cache
def _set_up() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    library = ctypes.CDLL(None if os.name == "posix" else "msvcrt")
    for name in ("sin", "cos"):  # of angles beyond the range of `elementary`
        llvm.add_symbol(f"svdrot_{name}", ctypes.cast(getattr(library, name), ctypes.c_void_p).value)


def triple() -> str:
    return llvm.get_default_triple()


@cache
def register_bytes() -> int:
    """Bytes in a vector register."""
    with LOCK:
        features = llvm.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx") else 16


@cache
def converts_half() -> bool:
    """Whether float16 needs no function of a library that may not be there."""
    with LOCK:
        features = llvm.get_host_cpu_features()
    return bool(
        features.get("f16c") or features.get("fullfp16") or llvm.get_default_triple().startswith("aarch64")
    )


def load(text: str) -> Any:
    """Compile LLVM's text; the engine returned owns the code, and `get_function_address(name)` finds it."""
    with LOCK:
        machine = target_machine()
        code = machine.emit_object(llvm.parse_assembly(text))
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)  # and it owns both
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        return engine
