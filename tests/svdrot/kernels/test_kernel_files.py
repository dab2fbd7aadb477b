"""Machine code on disk: kept for other processes, used if it is what was written, never in the way."""

import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import cold_starts
import pytest
import torch

from svdrot import cli
from svdrot._formulas import projection
from svdrot._kernels.cpu.compiler import kept, machine_code

CODE = bytes(range(256)) * 40


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    monkeypatch.setattr(kept, "folders", lambda: [tmp_path])
    kept._tell_of_no_place.cache_clear()
    return tmp_path


# Processes.


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_first_use_by_processes_and_threads_at_once_and_with_a_damaged_file():
    cold_starts.processes(3)


def test_machine_code_from_disk_finds_the_functions_of_the_system(tmp_path):
    """A process without numba once took address 0 for memset, which LLVM makes of loops of zeros."""
    compile_ = f"""
import math, numba, pathlib
import llvmlite.binding as llvm
from numba.core import cgutils
from numba.extending import intrinsic
from svdrot.engine.cpu import machine
from svdrot._kernels.cpu.compiler import by_numba, machine_code

@intrinsic  # of a loop of zeros LLVM makes memset in some versions only
def clear(context, numbers, n):
    def generate(context, builder, signature, arguments):
        size = builder.mul(arguments[1], arguments[1].type(8))
        cgutils.memset(builder, arguments[0], size, 0)
    return numba.void(numbers, n), generate

def kernel(numbers, n):
    x = numba.carray(numbers, (n,))
    clear(numbers, n - 1)
    x[n - 1] = math.sin(x[n - 1])

signature = numba.void(numba.types.CPointer(numba.float64), numba.intp)
compiled = numba.cfunc(signature, **by_numba.OPTIONS)(kernel)
module = llvm.parse_assembly(compiled.inspect_llvm())
module.get_function(compiled.native_name).name = "kernel"
code = machine.target_machine(3).emit_object(module)
assert b"memset" in code and b"sin" in code
pathlib.Path({str(tmp_path / "code")!r}).write_bytes(code)
"""
    load = f"""
import ctypes, pathlib, sys
import llvmlite.binding as llvm
from svdrot.engine.cpu import machine
from svdrot._kernels.cpu.compiler import machine_code
code = pathlib.Path({str(tmp_path / "code")!r}).read_bytes()
engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine.target_machine(3))
engine.add_object_file(llvm.ObjectFileRef.from_data(code))
engine.finalize_object()
prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_ssize_t)
numbers = (ctypes.c_double * 100)(*[1.0] * 100)
prototype(engine.get_function_address("kernel"))(ctypes.addressof(numbers), 100)
print(sum(numbers[:99]), numbers[99], "numba" in sys.modules)
"""
    python(compile_)
    assert python(load).split() == ["0.0", "0.8414709848078965", "False"]


# Files.


@pytest.mark.parametrize("damage", cold_starts.DAMAGES)
@pytest.mark.parametrize("place", [0, 20, 40, 5000])
def test_a_damaged_file_is_told_of_once_and_made_anew(damage, place, folder):
    kept.write("kernel", CODE)
    (file,) = folder.iterdir()
    file.write_bytes(cold_starts.DAMAGES[damage](file.read_bytes(), place))
    with pytest.warns(RuntimeWarning, match="is damaged: it is not used, and made anew") as told:
        assert kept.read("kernel") is None
    assert len(told) == 1 and str(file) in str(told[0].message)
    kept.write("kernel", CODE)
    assert kept.read("kernel") == CODE and [*folder.iterdir()] == [file]


def test_a_file_of_another_kernel_or_type_is_not_used(folder):
    kept.write("project-float32", CODE)
    shutil.copy(folder / "project-float32.kernel", folder / "project-float64.kernel")
    with pytest.warns(RuntimeWarning, match=r"project-float64\.kernel is damaged"):
        assert kept.read("project-float64") is None


def test_what_is_no_file_at_all(folder):
    assert kept.read("kernel") is None
    (folder / "kernel.kernel").mkdir()
    assert kept.read("kernel") is None
    with pytest.warns(RuntimeWarning, match="cannot be kept"):
        kept.write("kernel", CODE)


def test_a_second_folder_is_written_where_the_first_cannot_be_and_both_are_read(monkeypatch, tmp_path):
    first, second = tmp_path / "file", tmp_path / "folder"
    first.write_text("where a folder should be")
    monkeypatch.setattr(kept, "folders", lambda: [first, second])
    kept.write("kernel", CODE)
    assert (second / "kernel.kernel").exists() and kept.read("kernel") == CODE
    monkeypatch.setattr(kept, "folders", lambda: [second, first])
    assert kept.read("kernel") == CODE


def test_a_full_disk_is_told_of_once_and_leaves_nothing_behind(folder, monkeypatch):
    def full(self, data):
        with self.open("wb") as half:
            half.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(RuntimeWarning, match=r"cannot be kept: .*No space left.*Set XDG_CACHE_HOME") as told:
        kept.write("first", CODE)
        kept.write("second", CODE)
    assert len(told) == 1 and str(folder) in str(told[0].message)
    assert not [*folder.iterdir()]


def test_an_account_without_a_home(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert [folder.name for folder in kept.folders()] == ["__pycache__"]


def test_kernels_are_compiled_and_run_without_any_place(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(kept, "folders", lambda: [tmp_path / "file" / "no folder"])
    kept._tell_of_no_place.cache_clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        code = machine_code._code("polar", torch.float32)
    assert [warning.category for warning in told] == [RuntimeWarning]
    assert machine_code._link("polar", torch.float32, code).entry


def test_any_edit_of_a_source_is_compiled_anew(tmp_path):
    root = machine_code.ROOT
    for folder in machine_code.SOURCES:
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    fingerprint = machine_code._fingerprint.__wrapped__  # without its memory
    assert fingerprint(tmp_path) == fingerprint(root)
    sources = sorted(tmp_path.rglob("*.py"))
    names = {source.relative_to(tmp_path).as_posix() for source in sources}
    assert {"_kernels/cpu/loops/pairs.py", "_kernels/pairs.py", "_formulas/projection.py"} <= names
    seen = {fingerprint(root)}
    for source in sources:
        source.write_bytes(source.read_bytes() + b"# edited\n")
        seen.add(fingerprint(tmp_path))
    (tmp_path / "_kernels" / "new.py").touch()
    seen.add(fingerprint(tmp_path))
    assert len(seen) == len(sources) + 2


@pytest.mark.parametrize("what", ["numba", "llvmlite", "cpu"])
def test_another_compiler_or_cpu_compiles_anew(what, monkeypatch):
    before = machine_code._fingerprint.__wrapped__()
    if what == "numba":
        monkeypatch.setattr(machine_code.metadata, "version", lambda package: "0.0")
    elif what == "llvmlite":
        monkeypatch.setattr(machine_code.llvmlite, "__version__", "0.0")
    else:
        monkeypatch.setattr(machine_code.llvm, "get_host_cpu_name", lambda: "another")
    assert machine_code._fingerprint.__wrapped__() != before


def test_two_threads_compile_a_kernel_once(monkeypatch):
    calls = []

    def slow(kernel, dtype):
        calls.append(kernel)
        time.sleep(0.2)
        return b""

    monkeypatch.setattr(machine_code, "_code", slow)
    monkeypatch.setattr(machine_code, "_link", lambda kernel, dtype, code: object())
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(machine_code.load("polar", torch.int8)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["polar"] and len(found) == 8 and len({*map(id, found)}) == 1


def test_the_command_line_shows_and_clears_them(folder, capsys):
    kept.write("kernel", CODE)
    assert cli.main(["info"]) == 0
    assert f"1 compiled (0.0 MiB), kept in {folder}" in capsys.readouterr().out
    assert cli.main(["info", "--clear-cache"]) == 0
    assert "Removed 1 compiled kernels" in capsys.readouterr().out and not [*folder.iterdir()]
    assert cli.main(["info"]) == 0
    assert "0 compiled (0.0 MiB), kept in nowhere yet" in capsys.readouterr().out


def test_files_that_cannot_be_removed_are_named(folder, capsys, monkeypatch):
    kept.write("kernel", CODE)
    monkeypatch.setattr(kept, "_remove", lambda file: False)
    assert cli.main(["info", "--clear-cache"]) == 2
    assert "kernel.kernel cannot be removed" in capsys.readouterr().err


def test_no_word_of_a_loop_is_a_constant_of_the_formulas():
    """The one would silently stand for the other."""
    assert projection.with_constants({"FAR": 0.8}, float)["FAR"] == 0.8
    with pytest.raises(AssertionError, match="are those of the formulas: SMALL"):
        projection.with_constants({"SMALL": 1e-30, "FAR": 0.8}, float)
