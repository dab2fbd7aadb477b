"""Packages that only some functions need."""

import importlib
from types import ModuleType


def optional(name: str, purpose: str) -> ModuleType:
    """Import the optional package `name`.

    Raises:
        ImportError: if it cannot be loaded; says what needs it, how to install it, and what went wrong.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        system = " and the system libraries libusb-1.0, libGL and libX11" if name == "open3d" else ""
        raise ImportError(
            f'{purpose} needs {name}{system}: pip install "svdrot[registration]". It did not load: {error}'
        ) from error
