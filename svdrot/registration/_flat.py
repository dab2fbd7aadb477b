"""Points of a plane as points in space at height 0, where they turn about z and move across it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from svdrot.registration._points import Points
from svdrot.transform import Transform


def is_flat(points: Points) -> bool:
    """Return whether a cloud, or the first of a list, has two coordinates."""
    first = points[0] if isinstance(points, Sequence) and points else points
    return isinstance(first, Tensor) and first.ndim > 1 and first.shape[-1] == 2


def raised(name: str, value: Points | None, square: bool = False) -> Points | None:
    """Return vectors (..., 2) with a height of 0, or matrices (..., 2, 2) with 1 there."""
    if value is None:
        return None
    if not isinstance(value, Tensor):
        return [_raised(name, row, square) for row in value]
    return _raised(name, value, square)


def _raised(name: str, value: Tensor, square: bool) -> Tensor:
    wanted = (2, 2) if square else (2,)
    if not isinstance(value, Tensor) or value.shape[-len(wanted) :] != wanted:
        came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        end = ", ".join(map(str, wanted))
        raise ValueError(f"`{name}` must have shape (..., {end}) for clouds of the plane; got {came}.")
    if not square:
        return torch.nn.functional.pad(value, (0, 1))
    below = value.new_tensor([0.0, 0.0, 1.0]).expand(*value.shape[:-2], 1, 3)
    return torch.cat((torch.nn.functional.pad(value, (0, 1)), below), -2)


def raised_start(init: Transform | Tensor | None) -> Transform | Tensor | None:
    """Return the same of transforms of the plane, or matrices (..., 3, 3)."""
    if isinstance(init, Tensor):
        if init.shape[-2:] != (3, 3):
            raise ValueError(
                f"`init` must have shape (..., 3, 3) for clouds of the plane; got {tuple(init.shape)}."
            )
        init = Transform.from_matrix(init)
    if not isinstance(init, Transform) or init.rotation.shape[-1] != 2:
        return init
    rotation, translation = raised("init", init.rotation, True), raised("init", init.translation)
    assert isinstance(rotation, Tensor) and isinstance(translation, Tensor)
    return Transform(rotation, translation, init.scale)


def lowered(transform: Transform) -> Transform:
    """Return the transform of the plane."""
    return Transform(transform.rotation[..., :2, :2], transform.translation[..., :2], transform.scale)
