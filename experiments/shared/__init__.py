"""What experiments share. They import from here and from their own folder, never from another's.

Its modules go by their names, as in `shared.run.main`: experiments have a `run`, `data` and `results` of
their own. Each is imported when it is first used: a benchmark should run where the packages that trainings,
figures and command lines need are not installed.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import alignment as alignment
    from . import clouds as clouds
    from . import curves as curves
    from . import data as data
    from . import figures as figures
    from . import heads as heads
    from . import optimizers as optimizers
    from . import results as results
    from . import run as run
    from . import settings as settings
    from . import statistics as statistics
    from . import timing as timing
    from . import training as training


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from error
