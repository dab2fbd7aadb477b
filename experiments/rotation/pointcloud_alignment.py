"""Which rotation representation does a network learn best? The alignment of point clouds.

A siamese PointNet sees a cloud and a rotated copy of it and regresses the rotation R, copy = R cloud, by one
of the heads of `svdrot.nn.RotationHead`. All see the same clouds, rotations and initial trunk. Expected: the
continuous representations far ahead. Mean errors on aeroplanes after a full training, in degrees: svd
2.90, 6d 3.01, quaternion 11.66, axis-angle 12.74 (Brégier 2021); svd 1.63, 6d 2.24 (Levinson 2020).

    python -m experiments.rotation.pointcloud_alignment                          quick, on generated shapes
    python -m experiments.rotation.pointcloud_alignment --data planes --root FOLDER
    python -m experiments.rotation.pointcloud_alignment --full --data planes     as published: days on a CPU

A command that was stopped goes on where it was when it is given again, and ends in the same numbers to the
last bit. More --heads and --seeds may be added to a folder: what is finished is not trained again.

The loss is half the squared Frobenius distance, its mean over the pairs of a step (Levinson: the sum, but
Adam does not notice). The weights of the last step are evaluated: none are chosen by their validation error.

Protocol: Zhou et al. 2019, "On the Continuity of Rotation Representations in Neural Networks"; Levinson et
al. 2020, "An Analysis of SVD for Deep Rotation Estimation"; Brégier 2021, "Deep Regression on Manifolds: A 3D
Rotation Case Study".
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

import svdrot
from datasets import shapes
from experiments import _run
from experiments.rotation import _alignment_report, _clouds
from experiments.rotation._clouds import Clouds, Data

Head = Literal["svd", "6d", "quaternion", "axis_angle", "euler", "10d"]


@dataclass(frozen=True)
class Config:
    data: Literal["shapes", "planes"] = "shapes"
    """Generated objects, or the ShapeNet aeroplanes."""
    families: tuple[str, ...] = tuple(shapes.FAMILIES)
    """Kinds of --data shapes."""
    root: Path = Path("../shared/data/planes")
    """Folder of the aeroplanes: of the packed file, or the original pc_plane."""
    out: Path | None = None
    """Run folder; runs/pointcloud_alignment-<data> if None."""
    heads: tuple[Head, ...] = ("svd", "6d", "quaternion", "axis_angle", "euler")
    """Representations to compare."""
    seeds: tuple[int, ...] = (0,)
    """One training per head and seed; a seed sets the initial weights, the clouds and the rotations."""
    steps: int = 3000
    """Optimiser steps of a training."""
    clouds: int = 16
    """Clouds in a step."""
    copies: int = 4
    """Rotated copies of each of them."""
    points: int = 48
    """Points drawn from each cloud, anew in every step; 0 takes all."""
    rotations: Literal["haar", "axis-angle"] = "haar"
    """Uniform on SO(3), or uniform in axis and in angle as in the original code."""
    widths: tuple[int, int, int] = (32, 64, 256)
    """Features of a point after each layer of the encoder."""
    hidden: int = 512
    """Units between the encodings and the head."""
    slope: float = 0.01
    """Of the leaky ReLU below zero."""
    learning_rate: float = 2e-3
    """Highest one, of Adam."""
    warmup: int = 100
    """Steps over which the learning rate rises to it."""
    decay: Literal["cosine", "none"] = "cosine"
    """From there to zero at the last step, or constant."""
    clip: float | None = 1.0
    """Largest norm of a gradient: longer ones are shortened to it."""
    training_shapes: int = 1280
    """Objects of --data shapes to learn from."""
    validation_shapes: int = 320
    """Objects of --data shapes held out; of the aeroplanes 400 are."""
    validation_rotations: int = 10
    """Fixed rotations of each held-out cloud; the learning curves use the first."""
    evaluations: int = 25
    """Along a learning curve."""
    checkpoint_every: int = 1000
    """Steps."""
    device: str = "cpu"
    """Or cuda."""
    jobs: int = 2
    """Trainings at a time, each in a process."""
    threads: int = 1
    """Of each process."""

    def __post_init__(self):
        for name in ("heads", "seeds", "families"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` must not be empty.")
        for (
            name
        ) in "steps clouds copies validation_rotations evaluations checkpoint_every jobs threads".split():
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1; got {getattr(self, name)}.")

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"pointcloud_alignment-{self.data}"

    @property
    def trainings(self) -> list[tuple[str, int]]:
        return [(head, seed) for seed in self.seeds for head in self.heads]


FULL = Config(
    steps=2_600_000,
    clouds=1,
    copies=10,
    points=0,
    widths=(64, 128, 1024),
    learning_rate=1e-5,
    warmup=0,
    clip=None,
    decay="none",
    validation_rotations=100,
    evaluations=260,
    checkpoint_every=10_000,
)

# Fields that change no result, or only which results there are.
FREE = ("root", "out", "heads", "seeds", "checkpoint_every", "jobs")


def run(config: Config) -> list[dict]:
    """Train what the run folder lacks, write the report there, and return its rows, one per head and seed."""
    data = load(config)
    _run.open_folder(config.folder, config, free=FREE, data=data.digest())
    missing = [training for training in config.trainings if "errors" not in load_checkpoint(config, training)]
    if missing:
        progress = _run.in_parallel(partial(train, config), missing, config.jobs)
        _run.show(progress, len(missing) * config.steps)
    results = {training: load_checkpoint(config, training) for training in config.trainings}
    return _alignment_report.write(config.folder, results, setting(config, data))


def load(config: Config) -> Data:
    if config.data == "shapes":
        return _clouds.generated(config.families, config.training_shapes, config.validation_shapes)
    return _clouds.aeroplanes(config.root)


def setting(config: Config, data: Data) -> str:
    drawn = f"{config.points} of their points" if config.points else "all their points"
    kinds = f"{config.data} ({', '.join(config.families)})" if config.data == "shapes" else config.data
    return (
        f"{kinds}: {len(data.training.sizes):,} training and {len(data.validation.sizes)} validation "
        f"clouds, {drawn}; {config.steps:,} steps of {config.clouds} clouds x {config.copies} copies, Adam, "
        f"learning rate {config.learning_rate:g}, decay {config.decay}, clip {config.clip}; widths "
        f"3-{'-'.join(map(str, config.widths))}, {config.hidden} hidden; {config.rotations} rotations, "
        f"{config.validation_rotations} fixed ones per validation cloud; {config.device}."
    )


# Training.

SHOWN_EVERY = 25  # steps


def train(config: Config, training: tuple[str, int]) -> Iterator[_run.Progress]:
    """Train one head with one seed, from its checkpoint if any, until that holds the final errors."""
    torch.set_num_threads(config.threads)
    data = load(config).to(config.device)
    source, rotation = examination(config, data.validation)
    state = Training.begin(config, *training)
    state.restore(load_checkpoint(config, training))
    evaluated = {math.ceil(config.steps * i / config.evaluations) for i in range(1, config.evaluations + 1)}
    name = f"{training[0]} {training[1]}"
    yield _run.Progress(name, state.step, "")
    start = perf_counter()
    while state.step < config.steps:
        state.advance(config, data.training)
        saved = state.step % config.checkpoint_every == 0
        if saved or state.step in evaluated or state.step % SHOWN_EVERY == 0:
            loss = state.mean_loss()
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss of {name} became {loss} before step {state.step}.")
            state.seconds += perf_counter() - start
            if state.step in evaluated:
                state.extend_curve(loss, errors_in_degrees(state.model, source, rotation[:, :1]))
            if saved:
                save_checkpoint(config, training, state.content())
            error = f", {state.curve[-1]['mean_deg']:.1f} deg" if state.curve else ""
            yield _run.Progress(name, state.step, f"loss {loss:.3f}{error}")
            start = perf_counter()
    errors = errors_in_degrees(state.model, source, rotation)
    save_checkpoint(config, training, {**state.content(), "errors": errors.cpu()})
    yield _run.Progress(name, state.step, "")


@dataclass
class Training:
    """All that the rest of a training depends on."""

    model: "SiamesePointNet"
    optimizer: torch.optim.Optimizer
    generator: Generator  # of clouds, points and rotations
    loss_sum: Tensor  # since the last point of the curve
    loss_steps: int = 0
    step: int = 0
    seconds: float = 0.0  # of the steps alone
    curve: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def begin(cls, config: Config, head: str, seed: int) -> "Training":
        with torch.random.fork_rng():  # the same trunk for every head: its layers are drawn first
            torch.manual_seed(seed)
            model = SiamesePointNet(head, config.widths, config.hidden, config.slope).to(config.device)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        generator = Generator(config.device).manual_seed(seed)
        return cls(model, optimizer, generator, torch.zeros((), device=config.device))

    def advance(self, config: Config, clouds: Clouds) -> None:
        """One step of the optimiser on fresh clouds and rotations."""
        which = torch.randint(
            len(clouds.sizes), (config.clouds,), device=config.device, generator=self.generator
        )
        source = clouds.draw(which, config.points, self.generator)
        rotation = ROTATIONS[config.rotations](
            config.clouds, config.copies, device=config.device, generator=self.generator
        )
        loss = (self.model(source, rotation) - rotation).square().sum((-2, -1)).mean() / 2
        self.optimizer.zero_grad()
        loss.backward()
        if config.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step)
        self.optimizer.step()
        self.loss_sum += loss.detach()
        self.loss_steps += 1
        self.step += 1

    def mean_loss(self) -> float:
        return self.loss_sum.item() / self.loss_steps

    def extend_curve(self, loss: float, errors: Tensor) -> None:
        at = {"step": self.step, "loss": loss, "seconds": self.seconds}
        self.curve.append({**at, "mean_deg": errors.mean().item(), "median_deg": errors.median().item()})
        self.loss_sum.zero_()
        self.loss_steps = 0

    def content(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("loss_sum", "loss_steps", "step", "seconds", "curve")},
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Go on from `content`, or from the beginning if it is empty."""
        if not content:
            return
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.generator.set_state(content["generator"])
        self.loss_sum.copy_(content["loss_sum"])
        self.loss_steps, self.step = content["loss_steps"], content["step"]
        self.seconds, self.curve = content["seconds"], content["curve"]


def learning_rate(config: Config, step: int) -> float:
    rise = min(1.0, (step + 1) / (config.warmup + 1))
    fall = (1 + math.cos(math.pi * step / config.steps)) / 2 if config.decay == "cosine" else 1.0
    return config.learning_rate * rise * fall


def checkpoint(config: Config, training: tuple[str, int]) -> Path:
    return config.folder / "checkpoints" / f"{training[0]}-{training[1]}.pt"


def load_checkpoint(config: Config, training: tuple[str, int]) -> dict[str, Any]:
    """What was saved of a training, empty if nothing; `errors` are in it when it is finished."""
    file = checkpoint(config, training)
    return torch.load(file, map_location="cpu") if file.exists() else {}


def save_checkpoint(config: Config, training: tuple[str, int], content: dict[str, Any]) -> None:
    with _run.replacing(checkpoint(config, training)) as new:
        torch.save(content, new)


# The network.


class SiamesePointNet(nn.Module):
    """Rotations from clouds and their copies. No activation before the maximum, no normalisation."""

    def __init__(self, head: str, widths: tuple[int, int, int], hidden: int, slope: float):
        super().__init__()
        first, second, last = widths
        # Linear on (..., points, features): the map of a convolution of kernel 1, and faster on a CPU.
        self.encoder = nn.Sequential(
            nn.Linear(3, first),
            nn.LeakyReLU(slope),
            nn.Linear(first, second),
            nn.LeakyReLU(slope),
            nn.Linear(second, last),
        )
        self.comparison = nn.Sequential(nn.Linear(2 * last, hidden), nn.LeakyReLU(slope))
        # As by TensorFlow's defaults in Levinson's code; torch's own shrink the signal layer by layer.
        for layer in [*self.encoder, *self.comparison]:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.head = svdrot.nn.RotationHead(hidden, head)

    def forward(self, source: Tensor, rotation: Tensor) -> Tensor:
        """Estimates of the rotations (clouds, copies, 3, 3) of copies of clouds (clouds, points, 3)."""
        source = source[:, None]
        codes = self.encoder(torch.cat([source, source @ rotation.mT], 1)).max(-2).values
        copies = codes[:, 1:]
        return self.head(self.comparison(torch.cat([codes[:, :1].expand_as(copies), copies], -1)))


def uniform_angle_rotation(*shape: int, device: str, generator: Generator) -> Tensor:
    """Rotations about uniform axes by angles uniform in [0, pi]."""
    axis = nn.functional.normalize(torch.randn(*shape, 3, device=device, generator=generator), dim=-1)
    return svdrot.axis_angle_to_matrix(
        math.pi * torch.rand(*shape, 1, device=device, generator=generator) * axis
    )


ROTATIONS: dict[str, Callable[..., Tensor]] = {
    "haar": svdrot.random_rotation,
    "axis-angle": uniform_angle_rotation,
}


# Evaluation.


def examination(config: Config, clouds: Clouds) -> tuple[Tensor, Tensor]:
    """Held-out clouds (clouds, points, 3) and rotations (clouds, rotations, 3, 3), always the same."""
    generator, device = Generator().manual_seed(0), clouds.sizes.device
    everyone = torch.arange(len(clouds.sizes))
    source = clouds.to("cpu").draw(everyone, config.points, generator)
    rotation = ROTATIONS[config.rotations](
        len(everyone), config.validation_rotations, device="cpu", generator=generator
    )
    return source.to(device), rotation.to(device)


@torch.no_grad()
def errors_in_degrees(model: nn.Module, source: Tensor, rotation: Tensor) -> Tensor:
    """Geodesic errors, shape (clouds, rotations), a few clouds at a time: 2^16 points, or one cloud's."""
    few = max(1, 2**16 // (source.shape[1] * (1 + rotation.shape[1])))
    return torch.cat(
        [
            torch.rad2deg(svdrot.geodesic_distance(model(clouds, truth), truth))
            for clouds, truth in zip(source.split(few), rotation.split(few), strict=True)
        ]
    )


def main() -> None:
    run(_run.parse(Config(), __doc__, {"--full": FULL}))


if __name__ == "__main__":
    main()
