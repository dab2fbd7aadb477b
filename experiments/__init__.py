"""Experiments, one question each: `python -m experiments.<folder>.<name>` from the repository's root."""

from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_found = find_spec("datasets")
if _found is None or Path(_found.origin or "").parent != _ROOT / "datasets":
    raise ImportError(
        f"`datasets` resolves to {_found and _found.origin}, not to {_ROOT / 'datasets'}: "
        f"run `python -m {__name__}.<folder>.<name>` from {_ROOT}."
    )
