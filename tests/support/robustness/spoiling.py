"""Arguments that are not what they should be."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svdrot.registration import Transform

from .draws import Draw

# What torch and Python are handed as it is, and refuse themselves.
OF_TORCH = {
    *("dtype", "device", "generator", "shape", "sample_shape", "batch_shape"),
    *("training", "special", "undirected", "reflection", "degrees", "overlapping", "loss", "progress"),
}


def spoil(draw: Draw, value: Any) -> tuple[str, Any]:
    """Something else in place of an argument, and in words what."""
    if isinstance(value, Tensor):
        ways = [
            ("is nothing", lambda: None),
            ("is a string", lambda: "x"),
            ("is a list of numbers", lambda: [0.5, 1.0, 2.0]),
            ("is a number", lambda: 0.5),
            ("is an array", lambda: np.ones((3, 3))),
            ("is a transform", lambda: Transform.identity()),
            ("is one number", lambda: torch.tensor(1.0)),
            ("is empty", lambda: torch.zeros(0)),
            ("is integer", lambda: value.detach().nan_to_num(0, 0, 0).to(torch.int64)),
            ("is boolean", lambda: value.detach() != 0),
            ("is complex", lambda: value.detach().to(torch.complex64)),
            ("has one dimension more behind", lambda: value.detach()[..., None]),
        ]
        if value.ndim:
            ways += [
                ("has one dimension less", lambda: value.detach().sum(-1)),
                ("has no numbers at the end", lambda: value.detach()[..., :0]),
                ("has twice the numbers", lambda: torch.cat((value.detach(), value.detach()), -1)),
                ("has one row more", lambda: torch.cat((value.detach(), value.detach()[:1]))),
            ]
            # Of which there is none in BATCHES: it broadcasts with none but one.
            ways += [
                ("has another batch", lambda: torch.stack((value.detach(),) * 7).expand(7, *value.shape))
            ]
        how, make = draw.pick(*ways)
        return how, make()
    if isinstance(value, Transform):
        other = Transform.identity(2)
        ways = [
            ("is nothing", lambda: None),
            ("is a matrix", lambda: torch.eye(4)),
            ("is a rotation", lambda: value.rotation.detach()),
            ("is a string", lambda: "x"),
            ("is of the plane", lambda: other),
            (
                "has another batch",
                lambda: Transform(torch.eye(3).expand(7, 3, 3), torch.zeros(7, 3), torch.ones(7)),
            ),
        ]
        how, make = draw.pick(*ways)
        return how, make()
    if isinstance(value, str):
        odd = draw.pick("nonsense", None, 3)
    elif isinstance(value, int | float):
        odd = draw.pick(math.nan, math.inf, -math.inf, -1, -0.5, 0, None, "x")
    else:
        odd = draw.pick("x", 3, [], [None], (1, 2))
    return f"is {odd!r}", odd
