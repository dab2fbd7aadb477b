"""Old names: they work for one release, with a warning that names the new one."""

import warnings
from importlib import import_module
from typing import Any

# (module, old name): (where it is now, its name there).
NAMES = {
    ("svdrot.representations", "REPRESENTATIONS"): ("svdrot.representations", "TABLE"),
}


def renamed(module: str, name: str) -> Any:
    """What an old name of a module stands for; the module's `__getattr__` calls it.

    Raises:
        AttributeError: if it is not an old name.
    """
    if (module, name) not in NAMES:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    where, new = NAMES[module, name]
    warnings.warn(
        f"`{module}.{name}` is now `{where}.{new}`; the old name goes with the next release.",
        DeprecationWarning,
        stacklevel=3,
    )
    return getattr(import_module(where), new)
