"""Errors of estimates against the truth: of poses, of trajectories, and of what streams by in batches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import poses as poses
from . import trajectories as trajectories

if TYPE_CHECKING:
    from . import streaming as streaming

__all__ = ["poses", "streaming", "trajectories"]


def __getattr__(name: str) -> Any:
    if name == "streaming":  # it needs torchmetrics, an optional package
        return import_module("svdrot.evaluation.streaming")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
