"""The shape of the house: what is public, who may import whom, and what an import costs."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import svdrot
from svdrot._names import CONVERSIONS

ROOT = Path(svdrot.__file__).parent

# A module imports only from its own floor or below.
FLOORS = {
    "_batches": 3,
    "_checks": 0,
    "_deprecated": 0,
    "_names": 0,
    "_precision": 0,
    "_rules": 0,
    "_stand_ins": 0,
    "engine": 0,
    "_formulas": 0,
    "_vectors": 0,
    "_kernels": 0,
    "_optional": 0,
    "_robust_kernels": 0,
    "schedules": 0,
    "_autograd": 1,
    "projection": 2,
    "representations": 2,
    "quaternions": 2,
    "so3": 2,
    "vectors": 2,
    "rotations": 2,
    "metrics": 2,
    "interpolation": 3,
    "flows": 3,
    "distributions": 3,
    "conventions": 5,
    "nn": 3,
    "polar": 3,
    "se3": 3,
    "symmetries": 3,
    "transform": 3,
    "_displacements": 3,
    "averaging": 4,
    "epipolar": 4,
    "losses": 5,
    "optim": 4,
    "registration": 4,
    "evaluation": 5,
    "io": 5,
    "compat": 5,
    "__init__": 6,
    "cli": 7,
    "__main__": 8,
}

PUBLIC = [
    "Transform",
    "__version__",
    "angle_between",
    "averaging",
    "chordal_distance",
    "circular_mean",
    "compat",
    "conventions",
    "convert_rotation",
    "davenport_to_matrix",
    "distributions",
    "epipolar",
    "evaluation",
    "exp_map",
    "flows",
    "geodesic_distance",
    "hat",
    "interpolate_rotations",
    "interpolate_transforms",
    "io",
    "is_rotation",
    "log_map",
    "look_at",
    "losses",
    "matrix_to_davenport",
    "nn",
    "optim",
    "orthogonalize",
    "polar",
    "projection_gap",
    "quaternion_apply",
    "quaternion_conjugate",
    "quaternion_exp",
    "quaternion_inverse",
    "quaternion_log",
    "quaternion_mean",
    "quaternion_multiply",
    "quaternion_normalize",
    "quaternion_power",
    "quaternion_slerp",
    "quaternions",
    "random_rotation",
    "random_rotation_within",
    "random_small_rotation",
    "registration",
    "representations",
    "rotation_angle",
    "rotation_between",
    "schedules",
    "se3",
    "se3_adjoint",
    "se3_exp",
    "se3_left_jacobian",
    "se3_left_jacobian_inverse",
    "se3_log",
    "se3_right_jacobian",
    "se3_right_jacobian_inverse",
    "sim3_adjoint",
    "sim3_exp",
    "sim3_log",
    "slerp",
    "so3",
    "so3_left_jacobian",
    "so3_left_jacobian_inverse",
    "so3_right_jacobian",
    "so3_right_jacobian_inverse",
    "special_orthogonalize",
    "swing_twist",
    "symmetries",
    "vectors",
    "vee",
    "wrap_angle",
]


def test_public_names():
    """Adding a name changes this test on purpose."""
    assert svdrot.__all__ == sorted((*PUBLIC, *CONVERSIONS))
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
        found |= {name[1] for name in names if name[0] == "svdrot" and len(name) > 1} - {"__version__"}
    return found


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_modules_import_from_their_own_floor_or_below(file):
    own = file.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imported_modules(file):
        assert FLOORS[name] <= FLOORS[own], (
            f"{own} (floor {FLOORS[own]}) imports {name} (floor {FLOORS[name]})"
        )


def private_imports(file: Path, root: Path) -> list[str]:
    """Private modules and names of svdrot that a file imports from a package not its own.

    What begins with an underscore belongs to the package that it is in, and to what is in that; directly in
    svdrot, to all of svdrot.
    """
    own = file.relative_to(root.parent).parts[:-1]
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level + 1] if node.level else ()
            base += tuple((node.module or "").split(".")) if node.module else ()
            paths = [(*base, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            paths = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        for path in paths:
            if path[0] != root.name:
                continue
            for k, part in enumerate(path):
                if part.startswith("_") and not part.startswith("__") and own[:k] != path[:k]:
                    found.append(".".join(path))
    return found


ADMITTED = {
    "svdrot": (),
    # What an argument must be, and in which precision to compute, has one home in this repository.
    "datasets": ("svdrot._checks.", "svdrot._precision."),
    # Benchmarks measure the parts, too.
    "experiments": ("svdrot._formulas.conversions", "svdrot._kernels.gpu.gram"),
}


@pytest.mark.parametrize("folder", ADMITTED)
def test_private_modules_are_used_in_their_package_alone(folder):
    for file in sorted((ROOT.parent / folder).rglob("*.py")):
        found = [name for name in private_imports(file, ROOT) if not name.startswith(ADMITTED[folder])]
        assert not found, f"{file}: what others need has no underscore."


def test_the_test_of_private_imports_sees_them(tmp_path):
    file = tmp_path / "svdrot" / "nn" / "heads.py"
    file.parent.mkdir(parents=True)
    lines = (
        "from svdrot.losses._a import b",
        "from . import _c",
        "from svdrot import _d",
        "from ..io import _e",
    )
    file.write_text("\n".join(lines))
    assert private_imports(file, tmp_path / "svdrot") == ["svdrot.losses._a.b", "svdrot.io._e"]


@pytest.mark.parametrize("folder", sorted({path.parent for path in ROOT.rglob("__init__.py")}), ids=str)
def test_no_function_has_the_name_of_a_module_beside_it(folder):
    """`import svdrot.x.y` would give the one or the other, as the order of imports has it."""
    package = importlib.import_module(".".join(folder.relative_to(ROOT.parent).parts))
    modules = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/*.py")
    }
    for name in modules & {*vars(package)}:
        assert isinstance(getattr(package, name), ModuleType), f"{package.__name__}.{name}"


def test_the_floor_test_sees_imports():
    assert {"_kernels", "_checks"} <= imported_modules(ROOT / "_autograd.py") | imported_modules(
        ROOT / "projection.py"
    )


def python(code: str, **environment: str) -> str:
    call, how = [sys.executable, "-c", code], {"capture_output": True, "text": True, "timeout": 300}
    done = subprocess.run(call, env=os.environ | environment, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_brings_nothing_before_it_is_used():
    assert python("import sys, svdrot; print('torch' in sys.modules)").strip() == "False"


def test_a_projection_brings_nothing_heavy():
    code = "import sys, torch; before = {*sys.modules}; import svdrot; svdrot.special_orthogonalize"
    modules = set(python(f"{code}; print(*({{*sys.modules}} - before))").split())
    assert "svdrot.projection" in modules
    heavy = "numba llvmlite triton scipy matplotlib torch._dynamo torch._inductor onnx torchmetrics"
    assert not modules & set(heavy.split())


def test_whoever_only_rotates_needs_no_numba_and_no_disk():
    code = """
import sys, torch, svdrot
from svdrot._kernels.cpu.compiler import kept
kept.folders = lambda: []
m = torch.randn(4, 3, 3, requires_grad=True)
r = svdrot.special_orthogonalize(m)
q = svdrot.matrix_to_quaternion(r)
svdrot.geodesic_distance(r, svdrot.quaternion_to_matrix(q)).sum().backward()
svdrot.nn.RotationLoss("6d")(torch.randn(4, 6), r.detach())
svdrot.registration.kabsch(torch.randn(5, 4, 3), torch.randn(5, 4, 3))
print("numba" in sys.modules)
"""
    assert python(code).strip() == "False"


def test_type_checkers_see_the_public_names():
    stub = ast.parse((ROOT / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom) and node.level]
    seen = [(node.module, alias) for node in imports for alias in node.names if alias.name != "*"]
    assert sorted(alias.name for _, alias in seen) == sorted({*PUBLIC} - {"__version__"})
    for module, alias in seen:
        assert alias.name == alias.asname  # the form that makes a name public
        there = importlib.import_module(f"svdrot.{module or alias.name}")
        assert getattr(svdrot, alias.name) is (getattr(there, alias.name) if module else there)


def test_names_that_are_not_there():
    for name in ("projekt", "__wrapped__", "quaternion_to_nothing"):
        with pytest.raises(AttributeError, match=f"'svdrot' has no attribute '{name}'"):
            getattr(svdrot, name)


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


def device_decisions(tree: ast.AST) -> list[int]:
    """Lines that ask where a tensor is."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (
            node.attr in ("is_cuda", "is_cpu")
            or (node.attr == "type" and isinstance(node.value, ast.Attribute) and node.value.attr == "device")
        )
    ]


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_only_kernels_the_engine_and_precision_ask_for_the_device(file):
    assert device_decisions(ast.parse("x.is_cuda\nx.device.type\nx.device")) == [1, 2]
    if file.relative_to(ROOT).parts[0] not in ("_kernels", "engine", "_precision.py"):
        lines = device_decisions(ast.parse(file.read_text()))
        assert not lines, f"{file.name}:{lines}: ask `_kernels.side`."


@pytest.mark.parametrize("folder", sorted({path.parent for path in ROOT.rglob("*.py")}), ids=str)
def test_a_folder_can_be_taken_in_at_a_glance(folder):
    most = 27 if folder == ROOT else 15
    assert len(list(folder.glob("*.py"))) <= most


EXPERIMENTS = ROOT.parent / "experiments"


def foreign_imports(tree: ast.AST, own: str) -> list[str]:
    """Imports from a folder of experiments that is neither `own` nor the shared one."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names] if not node.level else []
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        parts = [name.split(".") for name in names]
        found += [".".join(p) for p in parts if p[0] == "experiments" and {*p[1:2]} - {own, "shared"}]
    return found


@pytest.mark.parametrize(
    "file", sorted(EXPERIMENTS.glob("*/*.py")), ids=lambda file: str(file.relative_to(EXPERIMENTS))
)
def test_no_folder_of_experiments_imports_another(file):
    wrong = "import experiments.a.b\nfrom experiments import b\nfrom experiments.c import d"
    assert len(foreign_imports(ast.parse(wrong), "a")) == 2
    foreign = foreign_imports(ast.parse(file.read_text()), file.parent.name)
    assert not foreign, f"{file.parent.name}/{file.name} imports {foreign}: move what it needs to shared."


def test_shared_modules_are_named():
    """`shared.run` and the others work wherever `shared` is imported."""
    from experiments import shared

    for file in (EXPERIMENTS / "shared").glob("[a-z]*.py"):
        assert hasattr(shared, file.stem), f"shared/{file.name}: add it to shared/__init__.py."
