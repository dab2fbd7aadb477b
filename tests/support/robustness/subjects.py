"""Which functions are called: those of the public tables, and the scenarios of public classes."""

import ast
import dataclasses
import inspect
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import svdrot
from svdrot import representations
from svdrot.registration import Transform

from .draws import Draw
from .makers import MAKERS
from .scenarios import scenarios

OF_HOOKS = ("Stack", "elementwise", "per_column", "per_entry", "per_matrix", "per_row", "update_only")
FILES, HOW = ("kitti", "points", "pose_graph", "transform", "tum"), ("read", "write")
NOT_CALLED = {
    "svdrot.conventions.detect": "takes arrays of any convention; see test_detection.py",
    "svdrot.io.read_bop": "reads a file; see the tests of svdrot.io",
    **{
        f"svdrot.io.{how}_{what}": f"{how}s a file; see the tests of svdrot.io"
        for how in HOW
        for what in FILES
    },
    "svdrot.io.BopPoses": "what a file holds",
    "svdrot.io.Format": "a row of a table",
    "svdrot.io.PoseGraph": "what a file holds",
    "svdrot.io.single_instances": "takes what a file holds",
    "svdrot.nn.add_representation": "takes formulas; see test_heads.py",
    "svdrot.registration.RobustKernel": "a row of a table; see test_robust_kernels.py",
    "svdrot.optim.split_parameters": "takes a module; see test_optim.py",
    "svdrot.nn.Pose": "takes no tensor but what it begins with; see test_learnable.py",
    "svdrot.nn.Representation": "a row of a table",
    "svdrot.nn.Rotation": "takes no tensor but what it begins with; see test_learnable.py",
    "svdrot.representations.Row": "a row of a table",
    "svdrot.registration.Status": "says how a cloud ended",
    "svdrot.nn.Strategy": "only its subclasses do anything",
    "svdrot.nn.orthogonal": "takes a module; see test_parametrizations.py",
    "svdrot.optim.RiemannianAdam": "its parameters must be orthonormal; see test_riemannian.py",
    "svdrot.optim.RiemannianSGD": "its parameters must be orthonormal; see test_riemannian.py",
    "svdrot.optim.MatrixView": "a setting of the optimizers",
    **{f"svdrot.optim.{name}": "a part of optimizers; see test_optim.py" for name in OF_HOOKS},
    "svdrot.evaluation.streaming.AngleStatistic": "only its subclasses do anything",
    "svdrot.polar.check_steps": "says what schedules must be; of `newton_schulz`",
    "svdrot.schedules.shrunk": "of the tables; takes no tensor",
}


DOORS = "svdrot.compat"


def public_functions(doors: bool = False) -> dict[str, Callable[..., Any]]:
    """Functions and classes in the public tables of svdrot, and of the public modules in them, each once.

    Those of `compat` on demand: each is a line or two on functions that are called themselves, and its own
    tests compare it with the library whose name it has.
    """
    found: dict[str, Callable[..., Any]] = {}
    modules, seen = [svdrot], set()
    for module in modules:
        for name in _public_names(module):
            if name == "streaming" and find_spec("torchmetrics") is None:
                continue
            value = getattr(module, name)
            if isinstance(value, types.ModuleType):
                ours = value.__name__.startswith("svdrot") and (doors or value.__name__ != DOORS)
                modules += [value] if ours else []
            elif callable(value) and not isinstance(value, types.GenericAlias) and id(value) not in seen:
                seen.add(id(value))
                found[f"{module.__name__}.{name}"] = value
        if module is representations:
            conversions = representations.CONVERSIONS.items()
            found |= {f"svdrot.{name}": f for name, f in conversions if id(f) not in seen}
            seen |= {id(f) for _, f in conversions}
    return found


def _public_names(module: types.ModuleType) -> list[str]:
    """Of `__all__`, or else what a module defines, and what it imports under the same name once more."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    imports = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names += [alias.name for alias in imports if alias.asname == alias.name]
    return [name for name in names if not name.startswith("_")]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is called, and how its arguments are made."""

    name: str
    function: Callable[..., Any]
    makers: dict[str, Callable[[Draw], Any]]
    spread: str | None  # the parameter that takes any number of positional arguments


def subjects() -> dict[str, Subject]:
    """Of every public function, and of every method that `scenarios` lists for a public class."""
    found, classes = {}, scenarios()
    for name, value in public_functions().items():
        if name in NOT_CALLED or (dataclasses.is_dataclass(value) and value is not Transform):
            continue  # results are read where they are returned
        methods = {name: value} if not isinstance(value, type) else classes.get(value)
        if methods is None:
            raise LookupError(
                f"{name} is a public class without a scenario: add functions that make and use one to "
                "`scenarios` in tests/support/robustness/, or the reason why there is none to NOT_CALLED."
            )
        for own, function in methods.items():
            full = own if own == name else f"{name}.{own}"
            found[full] = Subject(full, function, *_makers(full, function))
    return found


def _makers(name: str, function: Callable[..., Any]) -> tuple[dict[str, Callable[[Draw], Any]], str | None]:
    makers, spread = {}, None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            spread = parameter.name
        maker = MAKERS.get(f"{name}.{parameter.name}", MAKERS.get(parameter.name))
        if maker is None:
            raise LookupError(
                f"`{parameter.name}` of {name} has no maker: add one to MAKERS, under "
                f'"{parameter.name}" or "{name}.{parameter.name}", or {name} to NOT_CALLED with the reason.'
            )
        makers[parameter.name] = maker
    return makers, spread
