"""The shape of the house: what is public, who may import whom, and what an import costs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import svdrot
from svdrot.kernels import _machine_code

ROOT = Path(svdrot.__file__).parent

# A module imports only from its own floor or below.
FLOORS = {
    "kernels": 0,
    "_checks": 0,
    "schedules": 0,
    "_autograd": 1,
    "projection": 2,
    "representations": 2,
    "rotations": 2,
    "metrics": 2,
    "interpolation": 2,
    "distributions": 3,
    "conventions": 3,
    "streaming": 3,
    "nn": 3,
    "polar": 3,
    "symmetries": 3,
    "losses": 4,
    "optim": 4,
    "registration": 4,
    "__init__": 5,
    "cli": 6,
    "__main__": 7,
}

PUBLIC = [
    "axis_angle_to_matrix",
    "axis_angle_to_quaternion",
    "chordal_distance",
    "conventions",
    "convert_rotation",
    "distributions",
    "euler_to_matrix",
    "euler_to_quaternion",
    "exp_map",
    "geodesic_distance",
    "interpolate_rotations",
    "is_rotation",
    "log_map",
    "losses",
    "matrix_to_axis_angle",
    "matrix_to_euler",
    "matrix_to_mrp",
    "matrix_to_quaternion",
    "matrix_to_rotation_2vec",
    "matrix_to_rotation_5d",
    "matrix_to_rotation_6d",
    "matrix_to_rotation_9d",
    "matrix_to_symmetric_10d",
    "mrp_to_matrix",
    "mrp_to_quaternion",
    "nn",
    "optim",
    "orthogonalize",
    "polar",
    "projection_gap",
    "quaternion_to_axis_angle",
    "quaternion_to_euler",
    "quaternion_to_matrix",
    "quaternion_to_mrp",
    "random_rotation",
    "random_rotation_within",
    "random_small_rotation",
    "registration",
    "representations",
    "rotation_2vec_to_matrix",
    "rotation_5d_to_matrix",
    "rotation_6d_to_matrix",
    "rotation_9d_to_matrix",
    "schedules",
    "slerp",
    "special_orthogonalize",
    "streaming",
    "symmetric_10d_to_matrix",
    "symmetries",
]


def test_public_names():
    """Adding a name changes this test on purpose."""
    assert svdrot.__all__ == PUBLIC
    assert all(hasattr(svdrot, name) for name in PUBLIC)


def imported_modules(file: Path) -> set[str]:
    """Top-level modules of svdrot that a file of it imports."""
    found = set()
    package = ("svdrot", *file.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple((node.module or "").split(".")) if node.module else ()
            names = [(*base, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == "svdrot" and len(name) > 1}
    return found


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_modules_import_from_their_own_floor_or_below(file):
    own = file.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imported_modules(file):
        assert FLOORS[name] <= FLOORS[own], (
            f"{own} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[name]})"
        )


def test_the_floor_test_sees_imports():
    assert {"kernels", "_checks"} <= imported_modules(ROOT / "_autograd.py") | imported_modules(
        ROOT / "projection.py"
    )


def python(code: str, **environment: str) -> str:
    call, how = [sys.executable, "-c", code], {"capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run(call, env=os.environ | environment, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_brings_nothing_heavy():
    modules = python(
        "import sys, torch; before = set(sys.modules); import svdrot; print(*set(sys.modules) - before)"
    )
    assert "svdrot.projection" in modules.split()
    heavy = {
        "numba",
        "llvmlite",
        "triton",
        "scipy",
        "matplotlib",
        "torch._dynamo",
        "torch._inductor",
        "onnx",
        "torchmetrics",
    }
    assert not heavy & set(modules.split())


def test_machine_code_is_kept_between_processes_and_needs_no_numba(tmp_path):
    code = f"""
import sys, pathlib, torch, svdrot
from svdrot.kernels import _machine_code
_machine_code._folder = lambda: pathlib.Path({str(tmp_path)!r})
svdrot.special_orthogonalize(torch.eye(3))
print("numba" in sys.modules)
"""
    assert [python(code).strip() for _ in range(2)] == ["True", "False"]
    assert [file.suffix for file in tmp_path.iterdir()] == [".o"]


def test_a_folder_that_cannot_be_written_is_told_and_survived(monkeypatch, tmp_path):
    monkeypatch.setattr(_machine_code, "_folder", lambda: tmp_path / "missing")
    monkeypatch.setattr(_machine_code, "_compile", lambda kernel, dtype: b"code")
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        assert _machine_code._read("project", torch.float32) == b"code"


@pytest.mark.parametrize("module", _machine_code.TILES, ids=lambda module: module.__name__.split(".")[-1])
def test_an_edit_of_what_makes_the_machine_code_is_compiled_anew(module, monkeypatch, tmp_path):
    fingerprint = _machine_code._fingerprint.__wrapped__  # without its memory
    before = fingerprint(module)
    assert fingerprint(module) == before

    def edited(source: str | Path) -> Path:
        copy = tmp_path / Path(source).name
        copy.write_bytes(Path(source).read_bytes() + b"# edited\n")
        return copy

    for source in _machine_code.SHARED:
        others = [edited(file) if file == source else file for file in _machine_code.SHARED]
        with monkeypatch.context() as patch:
            patch.setattr(_machine_code, "SHARED", others)
            assert fingerprint(module) != before
    monkeypatch.setattr(module, "__file__", str(edited(module.__file__)))
    assert fingerprint(module) != before


def test_machine_code_from_disk_finds_the_functions_of_the_system(tmp_path):
    """A process without numba once took address 0 for memset, which LLVM makes of loops of zeros."""
    compile_ = f"""
import math, numba, pathlib
import llvmlite.binding as llvm
from numba.core import cgutils
from numba.extending import intrinsic
from svdrot.kernels import _machine_code, _numba

@intrinsic  # of such a loop LLVM makes memset in some versions only
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
compiled = numba.cfunc(signature, **_numba.OPTIONS)(kernel)
module = llvm.parse_assembly(compiled.inspect_llvm())
module.get_function(compiled.native_name).name = "kernel"
code = _machine_code._target_machine().emit_object(module)
assert b"memset" in code and b"sin" in code
pathlib.Path({str(tmp_path / "code")!r}).write_bytes(code)
"""
    load = f"""
import ctypes, pathlib, sys
import llvmlite.binding as llvm
from svdrot.kernels import _machine_code
code = pathlib.Path({str(tmp_path / "code")!r}).read_bytes()
engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine_code._target_machine())
engine.add_object_file(llvm.ObjectFileRef.from_data(code))
engine.finalize_object()
prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_ssize_t)
numbers = (ctypes.c_double * 100)(*[1.0] * 100)
prototype(engine.get_function_address("kernel"))(ctypes.addressof(numbers), 100)
print(sum(numbers[:99]), numbers[99], "numba" in sys.modules)
"""
    python(compile_)
    assert python(load).split() == ["0.0", "0.8414709848078965", "False"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_threads_survive_a_fork():
    code = """
import os, torch, svdrot
torch.set_num_threads(2)
m = torch.randn(40_000, 3, 3)
r = svdrot.special_orthogonalize(m)
child = os.fork()
if child == 0:
    torch.set_num_threads(2)
    os._exit(0 if torch.equal(svdrot.special_orthogonalize(m), r) else 1)
print(os.waitpid(child, 0)[1])
"""
    assert python(code).strip() == "0"
