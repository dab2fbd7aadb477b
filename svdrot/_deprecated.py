"""Old names: they work for one release, with a warning that names the new one."""

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar, cast

# (module, old name): (where it is now, its name there).
NAMES = {
    ("svdrot", "streaming"): ("svdrot.evaluation", "streaming"),
    ("svdrot.representations", "REPRESENTATIONS"): ("svdrot.representations", "TABLE"),
    ("svdrot.registration", "Neighbours"): ("svdrot.registration", "Neighbors"),
    ("svdrot.registration", "Synchronization"): ("svdrot.averaging", "Synchronization"),
    ("svdrot.registration", "average_curvature"): ("svdrot.averaging", "average_curvature"),
    ("svdrot.registration", "average_rotations"): ("svdrot.averaging", "average_rotations"),
    ("svdrot.registration", "pose_metrics"): ("svdrot.evaluation", "poses"),
    ("svdrot.registration", "read_points"): ("svdrot.io", "read_points"),
    ("svdrot.registration", "read_transform"): ("svdrot.io", "read_transform"),
    ("svdrot.registration", "synchronize_rotations"): ("svdrot.averaging", "synchronize_rotations"),
    ("svdrot.registration", "trajectories"): ("svdrot.evaluation", "trajectories"),
    ("svdrot.registration", "write_points"): ("svdrot.io", "write_points"),
    ("svdrot.registration", "write_transform"): ("svdrot.io", "write_transform"),
}

# Old module: the modules that have its names now, asked in this order.
MODULES = {
    "svdrot.streaming": ("svdrot.evaluation.streaming",),
    "svdrot.registration._iterations": (
        "svdrot.registration.clouds._iterations",
    ),  # where pickles look for `Status`
    "svdrot.registration.averaging": ("svdrot.averaging.rotations",),
    "svdrot.registration.consistency": ("svdrot.registration.pairs.consistency",),
    "svdrot.registration.features": ("svdrot.registration.clouds.features",),
    "svdrot.registration.files": ("svdrot.io.points", "svdrot.io.transforms"),
    "svdrot.registration.global_registration": ("svdrot.registration.clouds.global_registration",),
    "svdrot.registration.icp": ("svdrot.registration.clouds.icp",),
    "svdrot.registration.neighbours": ("svdrot.registration.clouds.neighbors",),
    "svdrot.registration.pose_metrics": ("svdrot.evaluation.poses",),
    "svdrot.registration.procrustes": ("svdrot.registration.pairs.procrustes",),
    "svdrot.registration.ransac": ("svdrot.registration.pairs.ransac",),
    "svdrot.registration.reweighting": ("svdrot.registration.pairs.reweighting",),
    "svdrot.registration.robust": ("svdrot.registration.pairs.robust",),
    "svdrot.registration.surfaces": ("svdrot.registration.clouds.surfaces",),
    "svdrot.registration.synchronization": ("svdrot.averaging.graphs",),
    "svdrot.registration.trajectories": ("svdrot.evaluation.trajectories",),
    "svdrot.registration.transform": ("svdrot.transform",),
}
_RENAMED = {"Neighbours": "Neighbors", "SUFFIXES": "FORMATS"}  # within modules that moved
ROOMS = tuple(f"svdrot.{room}" for room in ("registration", "averaging", "evaluation", "io", "transform"))

# (function, old argument): its name now.
ARGUMENTS = {("svdrot.registration.icp", "neighbours"): "neighbors"}

# (function, old argument): why it is of no use any more.
DROPPED = {
    ("svdrot.registration.register", "generator"): "nothing is drawn at random",
    ("svdrot.registration.register", "method"): "what agrees is found by the consistency of distances",
}

# (class, old attribute): its name now.
ATTRIBUTES = {("svdrot.registration.Alignment", "centred"): "centered"}

# Functions that took (points, estimate, truth), and take (estimate, truth, points) now.
POINTS_FIRST = (
    "svdrot.evaluation.poses.add",
    "svdrot.evaluation.poses.add_symmetric",
    "svdrot.evaluation.poses.point_rmse",
)

_F = TypeVar("_F", bound=Callable[..., Any])
_C = TypeVar("_C", bound=type)


def renamed(module: str, name: str) -> Any:
    """Return what an old name of a module stands for; the module's `__getattr__` calls it.

    Raises:
        AttributeError: if it is not an old name.
    """
    if (module, name) not in NAMES:
        if f"{module}.{name}" in MODULES:
            return sys.modules[f"{module}.{name}"]  # whose own names warn
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    where, new = NAMES[module, name]
    _warn(f"{module}.{name}", f"{where}.{new}")
    return getattr(import_module(where), new)


def _warn(old: str, new: str, level: int = 4) -> None:
    message = f"`{old}` is now `{new}`; the old name goes with the next release."
    warnings.warn(message, DeprecationWarning, stacklevel=level)


def renamed_arguments(path: str) -> Callable[[_F], _F]:
    """Let the public function at `path` be called by its old arguments, of `ARGUMENTS` and `DROPPED`."""
    names = {old: new for (function, old), new in ARGUMENTS.items() if function == path}
    dropped = {old: why for (function, old), why in DROPPED.items() if function == path}

    def decorate(function: _F) -> _F:
        @wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            for old in dropped.keys() & named.keys():
                message = f"`{path}({old}=)` is of no use: {dropped[old]}; it goes with the next release."
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                del named[old]
            for old in names.keys() & named.keys():
                if names[old] in named:
                    raise TypeError(f"{path}() got `{names[old]}` and its old name `{old}`.")
                _warn(f"{path}({old}=)", f"{path}({names[old]}=)", 3)
                named[names[old]] = named.pop(old)
            return function(*args, **named)

        return cast(_F, call)

    return decorate


def renamed_attributes(path: str) -> Callable[[_C], _C]:
    """Give a class, and its pickles, the old attributes that `ATTRIBUTES` has for `path`."""

    def reader(old: str, new: str) -> property:
        def read(instance: object) -> Any:
            _warn(f"{path}.{old}", f"{path}.{new}", 3)
            return getattr(instance, new)

        return property(read, doc=f"Return `{new}`, by its old name.")

    def decorate(owner: _C) -> _C:
        names = {old: new for (of, old), new in ATTRIBUTES.items() if of == path}

        def load(instance: Any, state: dict[str, Any]) -> None:
            instance.__dict__.update({names.get(name, name): value for name, value in state.items()})

        for old, new in names.items():
            setattr(owner, old, reader(old, new))
        owner.__setstate__ = load  # of pickles that have the old names
        return owner

    return decorate


def points_first(function: _F) -> _F:
    """Let a function of `POINTS_FIRST` be called with the points before the poses, as it was."""

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        tensors = [hasattr(given, "is_floating_point") for given in args]  # which no pose is
        if tensors[:1] == [True] and tensors[2:] != [True]:
            path = f"{function.__module__}.{function.__name__}"
            _warn(f"{path}(points, estimate, truth)", f"{path}(estimate, truth, points)", 3)
            named |= zip(("points", "estimate", "truth"), args, strict=False)
            args = args[3:]
        return function(*args, **named)

    return cast(_F, call)


def alias_modules(package: str) -> None:
    """Let `import` find the old modules of a package.

    They are put where Python looks first, since an import that ran would bind them in the package, over
    functions of the same names.
    """
    for old in MODULES:
        if old.rpartition(".")[0] == package:
            sys.modules.setdefault(old, _Moved(old))


class _Moved(ModuleType):
    """A module whose names are elsewhere. It loads nothing before one is asked for."""

    def __init__(self, name: str):
        super().__init__(name, f"The old name of {' and '.join(MODULES[name])}.")
        self.__spec__ = ModuleSpec(name, None)

    def _own(self) -> dict[str, str]:
        """The names that had their home here, and the modules where that is now."""
        old = {new: name for name, new in _RENAMED.items()}
        found = {}
        for where in MODULES[self.__name__]:
            for name, value in vars(import_module(where)).items():
                home = str(getattr(value, "__module__", where))
                if name.startswith("_") or not home.startswith(ROOMS) or isinstance(value, ModuleType):
                    continue
                for known in (name, old.get(name, name)):
                    if home == where or known not in found:
                        found[known] = where
        return found

    def __dir__(self) -> list[str]:
        return sorted(self._own())

    def __getattr__(self, name: str) -> Any:
        missing = AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name.startswith("__") and name != "__all__":
            raise missing
        try:
            own = self._own()
        except ImportError as error:  # of an optional package
            raise missing from error
        if name == "__all__":
            return sorted(own)
        if name not in own:
            raise missing
        new = _RENAMED.get(name, name)
        _warn(f"{self.__name__}.{name}", f"{own[name]}.{new}", 3)
        return getattr(import_module(own[name]), new)
