"""What tools see of the library: names, types, versions.

python tests/house/test_public_face.py    writes the stub of the conversions anew
"""

import importlib
import importlib.util
import inspect
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import svdrot
from svdrot import _deprecated, _names, representations

ROOT = Path(svdrot.__file__).parent
STUB = ROOT / "representations" / "_conversions.pyi"
FLOOR = 0.97  # share of public names whose types are known

USE = """
import svdrot
from torch import Tensor

def use(x: Tensor) -> Tensor:
    y = svdrot.euler_to_mrp(x, "XYZ")
    z = svdrot.representations.mrp_to_rotation_6d(y)
    return svdrot.special_orthogonalize(svdrot.rotation_6d_to_matrix(z))
"""
MISUSES = {
    "svdrot.registraton": "registraton",
    "svdrot.euler_to_nothing": "euler_to_nothing",
    "svdrot.representations.mrp_to_nothing": "mrp_to_nothing",
    "svdrot.euler_to_mrp(1.5, 'XYZ')": "float",
    "svdrot.mrp_to_matrix()": "missing",
}


def stub() -> str:
    lines = [
        '"""The types of every `X_to_Y`; made by `python tests/house/test_public_face.py`."""',
        "",
        "from torch import Tensor",
        "",
    ]
    for name in _names.CONVERSIONS:
        parameters = inspect.signature(getattr(representations, name)).parameters.values()
        kinds = {"sequence": "str"}
        arguments = ", ".join(f"{p.name}: {kinds.get(p.name, 'Tensor')}" for p in parameters)
        lines.append(f"def {name}({arguments}) -> Tensor: ...")
    return "\n".join(lines) + "\n"


def test_the_stub_is_that_of_the_functions():
    assert STUB.read_text() == stub()


def test_dir_is_the_public_names_and_no_more():
    assert dir(svdrot) == sorted(svdrot.__all__)
    assert all(hasattr(svdrot, name) for name in dir(svdrot))
    assert {*_names.CONVERSIONS} == {*representations.CONVERSIONS} < {*dir(svdrot)}
    assert {*_names.KINDS} == {*representations.KINDS}


def test_the_version_is_that_of_the_package():
    assert svdrot.__version__ == metadata.version("svdrot")
    changes = (ROOT.parent / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(svdrot.__version__)}\]", changes, re.M), "CHANGELOG.md has no entry."


@pytest.mark.parametrize("old", _deprecated.NAMES, ids=".".join)
def test_old_names_work_and_tell_the_new(old):
    module, name = old
    where, new = _deprecated.NAMES[old]
    with pytest.warns(DeprecationWarning, match=re.escape(f"`{module}.{name}` is now `{where}.{new}`")):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(where), new)
    assert name not in dir(importlib.import_module(module))
    with pytest.raises(AttributeError, match=f"'{module}' has no attribute 'nothing'"):
        _ = importlib.import_module(module).nothing


@pytest.mark.parametrize("old", _deprecated.MODULES)
def test_old_modules_are_found_and_tell_the_new(old):
    """By the names that tests of the first release imported, and whatever else the new modules have."""
    importlib.import_module(old.rpartition(".")[0])
    module = importlib.import_module(old)
    for where in _deprecated.MODULES[old]:
        there = importlib.import_module(where)
        own = [name for name, value in vars(there).items() if getattr(value, "__module__", "") == where]
        public = [name for name in own if not name.startswith("_")]
        assert public
        for name in public:
            with pytest.warns(DeprecationWarning, match=re.escape(f"`{old}.{name}` is now `{where}.{name}`")):
                assert getattr(module, name) is getattr(there, name)
    with pytest.raises(AttributeError, match=f"'{old}' has no attribute 'nothing'"):
        _ = module.nothing


def test_old_modules_are_modules_to_those_who_look():
    module = importlib.import_module("svdrot.registration.files")
    assert (
        svdrot.registration.files is module and svdrot.registration.averaging
    )  # as attributes, without import
    assert {"read_points", "write_transform", "SUFFIXES"} <= set(dir(module)) == set(module.__all__)
    assert importlib.util.find_spec("svdrot.registration.files") is module.__spec__
    assert not any(hasattr(module, name) for name in ("torch", "Tensor", "np", "check_shape", "__file__"))


def test_old_modules_warn_where_they_are_used(tmp_path):
    """At the line of the user, so that the default filters show it."""
    file = tmp_path / "user.py"
    file.write_text("from svdrot.registration.files import read_points\nimport svdrot\nsvdrot.streaming\n")
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=True)
    for line, old in ((1, "svdrot.registration.files.read_points"), (3, "svdrot.streaming")):
        assert re.search(rf"user\.py:{line}: DeprecationWarning: `{re.escape(old)}` is now", done.stderr)


def test_old_pickles_are_read():
    with pytest.warns(DeprecationWarning, match=r"_iterations.Status` is now"):
        status = pickle.loads(b"csvdrot.registration._iterations\nStatus\n(I1\ntR.")
    assert status is svdrot.registration.Status(1)
    x = svdrot.random_rotation(5)[..., 0]
    fit = svdrot.registration.kabsch(x, x)
    state = {("centred" if name == "centered" else name): value for name, value in vars(fit).items()}
    old = object.__new__(type(fit))
    old.__setstate__(state)
    assert old.centered is fit.centered and torch.equal(old.residual, fit.residual)
    assert torch.equal(pickle.loads(pickle.dumps(fit)).residual, fit.residual)


def test_an_old_module_hides_no_function_of_its_name():
    importlib.import_module("svdrot.registration.icp")
    assert callable(svdrot.registration.icp) and callable(svdrot.registration.procrustes)


@pytest.mark.parametrize("old", _deprecated.ARGUMENTS, ids=".".join)
def test_old_arguments_work_and_tell_the_new(old):
    path, argument = old
    module, _, name = path.rpartition(".")
    function, new = getattr(importlib.import_module(module), name), _deprecated.ARGUMENTS[old]
    assert new in inspect.signature(function).parameters
    cloud = svdrot.random_rotation(60)[..., 0]
    expected = function(cloud, cloud, max_distance=1.0, **{new: 9}).transform.matrix
    with pytest.warns(DeprecationWarning, match=re.escape(f"`{path}({argument}=)` is now `{path}({new}=)`")):
        assert torch.equal(
            function(cloud, cloud, max_distance=1.0, **{argument: 9}).transform.matrix, expected
        )
    with pytest.raises(TypeError, match=f"`{new}` and its old name `{argument}`"):
        function(cloud, cloud, max_distance=1.0, **{argument: 9, new: 9})


@pytest.mark.parametrize("old", _deprecated.DROPPED, ids=".".join)
def test_dropped_arguments_are_told_of_and_change_nothing(old):
    path, argument = old
    module, _, name = path.rpartition(".")
    function = getattr(importlib.import_module(module), name)
    assert argument not in inspect.signature(function).parameters
    cloud = svdrot.random_rotation(60)[..., 0]
    expected = function(cloud, cloud).transform.matrix
    with pytest.warns(DeprecationWarning, match=re.escape(f"`{path}({argument}=)` is of no use: ")):
        assert torch.equal(function(cloud, cloud, **{argument: "any"}).transform.matrix, expected)


@pytest.mark.parametrize("old", _deprecated.ATTRIBUTES, ids=".".join)
def test_old_attributes_work_and_tell_the_new(old):
    """Of alignments, the only class that has any."""
    path, attribute = old
    new = _deprecated.ATTRIBUTES[old]
    assert path == "svdrot.registration.Alignment"
    x = svdrot.random_rotation(5)[..., 0]
    for found in (svdrot.registration.kabsch(x, x), svdrot.registration.robust_kabsch(x, x, 0.1)):
        with pytest.warns(DeprecationWarning, match=re.escape(f"`{path}.{attribute}` is now `{path}.{new}`")):
            assert getattr(found, attribute) is getattr(found, new)


@pytest.mark.parametrize("path", _deprecated.POINTS_FIRST)
def test_the_old_order_of_arguments_works_and_tells_the_new(path):
    module, _, name = path.rpartition(".")
    function = getattr(importlib.import_module(module), name)
    points, a = torch.randn(9, 3), svdrot.Transform.identity()
    b = svdrot.Transform(svdrot.random_rotation(), torch.ones(3), torch.ones(()))
    expected = function(a, b, points)
    told = re.escape(f"`{path}(points, estimate, truth)` is now `{path}(estimate, truth, points)`")
    for call in (
        lambda: function(points, a, b),
        lambda: function(points, a, truth=b),
        lambda: function(points, estimate=a, truth=b),
    ):
        with pytest.warns(DeprecationWarning, match=told):
            assert torch.equal(call(), expected)
    assert torch.equal(function(points=points, estimate=a, truth=b), expected)


def test_results_and_their_parts_are_exported():
    registration = importlib.import_module("svdrot.registration")
    for name in ("Status", "Iteration", "Stage", "METHODS", "KERNELS"):
        assert name in registration.__all__ and hasattr(registration, name)


@pytest.fixture(scope="module")
def checker(tmp_path_factory):
    """Pyright in an environment that has the library installed, not in place, as its users do."""
    pytest.importorskip("pyright", reason="types are checked by pyright")
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    (site,) = folder.glob("env/[Ll]ib/**/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    shutil.copytree(ROOT, site / "svdrot", ignore=shutil.ignore_patterns("__pycache__"))
    binaries = next(path for name in ("bin", "Scripts") if (path := folder / "env" / name).exists())
    environment = os.environ | {
        "PATH": os.pathsep.join((str(binaries), os.environ["PATH"])),
        "VIRTUAL_ENV": str(folder / "env"),
    }

    def check(*arguments: str) -> dict:
        command = [sys.executable, "-m", "pyright", "--outputjson", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        return json.loads(done.stdout[done.stdout.index("{") :])

    check.folder = folder  # type: ignore[attr-defined]
    return check


def test_types_of_public_names_are_known(checker):
    found = checker("--verifytypes", "svdrot", "--ignoreexternal")["typeCompleteness"]
    unknown = [
        f"{symbol['name']}: {symbol['diagnostics'][0]['message']}"
        for symbol in found["symbols"]
        if not symbol["isTypeKnown"] and symbol["isExported"] and symbol["diagnostics"]
    ]
    assert found["exportedSymbolCounts"]["withKnownType"] > 500
    assert found["completenessScore"] >= FLOOR, "\n".join(unknown)


def test_valid_calls_are_typed_and_misspelt_names_are_errors(checker):
    misuses = "".join(f"{line}\n" for line in MISUSES)
    lines = USE.count("\n")
    (checker.folder / "use.py").write_text(USE + misuses)
    found = [d for d in checker("use.py")["generalDiagnostics"] if d["severity"] == "error"]
    by_line = {d["range"]["start"]["line"] - lines: d["message"] for d in found}
    assert sorted(by_line) == [*range(len(MISUSES))], by_line
    for word, (_, message) in zip(MISUSES.values(), sorted(by_line.items()), strict=True):
        assert word in message


if __name__ == "__main__":
    STUB.write_text(stub())
