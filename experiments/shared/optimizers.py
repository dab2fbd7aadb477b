"""The optimizers of the trainings, and how their learning rate rises and falls."""

import math
from collections.abc import Iterable
from typing import Literal

import torch.distributed as dist
from torch import nn
from torch.optim import AdamW, Optimizer

from experiments.shared.run import processes_number
from svdrot.optim import Muon, split_parameters
from svdrot.schedules import POLAR_EXPRESS

Decay = Literal["cosine", "drop", "none"]


def relative_rate(step: int, steps: int, warmup: int, decay: Decay) -> float:
    """Return the learning rate over the highest one, in a step counted from 0."""
    rise = min(1.0, (step + 1) / (warmup + 1))
    match decay:
        case "cosine":
            fall = (1 + math.cos(math.pi * step / steps)) / 2
        case "drop":
            fall = 1.0 if step < steps / DROP_AFTER else 0.1
        case "none":
            fall = 1.0
    return rise * fall


DROP_AFTER = 50  # that part of the steps; Zhou et al. 2019: after 10,000 of 500,000


def adamw(model: nn.Module, weight_decay: float, excepted: Iterable[nn.Module]) -> Optimizer:
    return AdamW(model.parameters(), weight_decay=weight_decay, fused=True)


def muon(model: nn.Module, weight_decay: float, excepted: Iterable[nn.Module]) -> Optimizer:
    """Step the hidden matrices by Muon, with AdamW's step size; the rest, and what is `excepted`, by
    AdamW.
    """
    return Muon(
        split_parameters(model, adamw=excepted),
        weight_decay=weight_decay,
        schedule=POLAR_EXPRESS[:STEPS],
        adjust_lr_fn="match_rms_adamw",
        process_group=dist.group.WORLD if processes_number() > 1 else None,
    )


STEPS = 5  # as many as Jordan et al. take: small networks spend most time here

OPTIMIZERS = {"adamw": adamw, "muon": muon}
