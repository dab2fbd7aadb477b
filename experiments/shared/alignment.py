"""The alignment of point clouds, a task that experiments of several folders train: data, network, errors.

A siamese PointNet sees a cloud and a rotated copy of it and regresses the rotation R, copy = R cloud, by one
of the heads of `svdrot.nn.RotationHead`. All see the same clouds, rotations and initial trunk.

The loss is, unless the settings say otherwise, half the squared Frobenius distance, its mean over the pairs
of a step (Levinson: the sum, but Adam does not notice).

Protocol: Zhou et al. 2019, "On the Continuity of Rotation Representations in Neural Networks"; Levinson et
al. 2020, "An Analysis of SVD for Deep Rotation Estimation"; Brégier 2021, "Deep Regression on Manifolds: A 3D
Rotation Case Study".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Generator, Tensor, nn

import svdrot
from datasets import shapes
from experiments.shared import clouds, training
from experiments.shared.clouds import Clouds, Data
from experiments.shared.settings import Amount, Count, NotNegative, Share
from experiments.shared.training import Task
from svdrot import losses
from svdrot.nn import AfterWarmup, Strategy


@dataclass(frozen=True)
class Config(training.Config):
    data: Literal["shapes", "planes"] = "shapes"
    """Generated objects, or the ShapeNet airplanes."""
    families: tuple[str, ...] = tuple(shapes.FAMILIES)
    """Kinds of --data shapes."""
    root: Path = Path("data/planes")
    """Folder of the airplanes: of the packed file, or the original pc_plane."""
    loss: Literal["squared_chordal", "chordal", "geodesic", "huber", "clouds"] = "squared_chordal"
    """Half the squared Frobenius distance of the rotations; that distance; their angle; Huber's function of
    it; or, self-supervised, half the mean squared distance from the copy's points to the turned cloud's."""
    strategy: Literal["always", "inference", "after_warmup", "manifold_gradient"] = "always"
    """When the head projects; see `svdrot.nn.RotationHead`."""
    switch: Share = 0.04
    """Part of the steps before the projection of --strategy after_warmup; Levinson: 100,000 of 2,600,000."""
    clouds: Count = 16
    """Clouds in a step."""
    copies: Count = 4
    """Rotated copies of each of them."""
    points: Amount = 48
    """Points drawn from each cloud, anew in every step; 0 takes all."""
    rotations: Literal["haar", "axis-angle"] = "haar"
    """Uniform on SO(3), or uniform in axis and in angle as in the original code."""
    widths: tuple[Count, Count, Count] = (32, 64, 256)
    """Features of a point after each layer of the encoder."""
    hidden: Count = 512
    """Units between the encodings and the head."""
    slope: NotNegative = 0.01
    """Of the leaky ReLU below zero."""
    training_shapes: Count = 1280
    """Objects of --data shapes to learn from."""
    validation_shapes: Count = 320
    """Objects of --data shapes held out; of the airplanes 400 are."""
    validation_rotations: Count = 10
    """Fixed rotations of each held-out cloud; the learning curves use the first."""

    def __post_init__(self):
        super().__post_init__()
        clouds.check_families(self.families)
        if self.strategy in ("inference", "after_warmup") and self.loss not in RAW_LOSSES:
            raise ValueError(f"`loss` must be one of {RAW_LOSSES} for raw matrices; got {self.loss!r}.")


def load(config: Config) -> Data:
    if config.data == "shapes":
        return clouds.generated(config.families, config.training_shapes, config.validation_shapes)
    return clouds.airplanes(config.root)


# Training.


def prepare(config: Config, head: str, seed: int) -> Task:
    return task(config, network(config, head), load(config))


def network(config: Config, head: str) -> "SiamesePointNet":
    strategy = config.strategy
    if strategy == "after_warmup":
        strategy = AfterWarmup(math.ceil(config.switch * config.steps))
    return SiamesePointNet(head, config.widths, config.hidden, config.slope, strategy)


def task(config: Config, model: "SiamesePointNet", data: Data) -> Task:
    """Set up the training of a network on the alignment of clouds and rotated copies of them."""
    model, data = model.to(config.device), data.to(config.device)
    source, rotation = examination(config, data.validation)

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        clouds, device = data.training, config.device
        which = torch.randint(len(clouds.sizes), (config.clouds,), device=device, generator=generator)
        source = clouds.draw(which, config.points, generator)
        haar = ROTATIONS[config.rotations]
        return source, haar(config.clouds, config.copies, device=device, generator=generator)

    def loss(model: nn.Module, source: Tensor, rotation: Tensor) -> Tensor:
        return LOSSES[config.loss](model(source, rotation), rotation, source).mean()

    def evaluate(model: nn.Module) -> dict[str, float]:
        errors = errors_in_degrees(model, source, rotation[:, :1])
        return {"mean_deg": errors.mean().item(), "median_deg": errors.median().item()}

    def examine(model: nn.Module) -> dict[str, Tensor]:
        return {"errors": errors_in_degrees(model, source, rotation).cpu()}

    return Task(model, draw, loss, evaluate, examine, adamw=(model.encoder[0], model.head))


HUBER = 0.2  # radians, 11 degrees: a square below, where most errors are in the end

# Of estimates and rotations (clouds, copies, 3, 3), and clouds (clouds, points, 3).
LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "squared_chordal": lambda r, truth, x: losses.squared_chordal(r, truth) / 2,
    "chordal": lambda r, truth, x: losses.chordal(r, truth),
    "geodesic": lambda r, truth, x: losses.geodesic(r, truth),
    "huber": lambda r, truth, x: losses.huber_geodesic(r, truth, HUBER),
    "clouds": lambda r, truth, x: (x[:, None] @ (r - truth).mT).square().sum(-1).mean(-1) / 2,
}
RAW_LOSSES = ("squared_chordal", "clouds")  # those that take any matrix


# The network.


class SiamesePointNet(nn.Module):
    """Rotations from clouds and their copies. No activation before the maximum, no normalization."""

    def __init__(
        self,
        head: str,
        widths: tuple[int, int, int],
        hidden: int,
        slope: float,
        strategy: str | Strategy = "always",
    ):
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
        self.head = svdrot.nn.RotationHead(hidden, head, strategy)

    def forward(self, source: Tensor, rotation: Tensor) -> Tensor:
        """Estimate the rotations (clouds, copies, 3, 3) of copies of clouds (clouds, points, 3)."""
        source = source[:, None]
        codes = self.encoder(torch.cat([source, source @ rotation.mT], 1)).max(-2).values
        copies = codes[:, 1:]
        return self.head(self.comparison(torch.cat([codes[:, :1].expand_as(copies), copies], -1)))


def uniform_angle_rotation(*shape: int, device: str, generator: Generator) -> Tensor:
    """Draw rotations about uniform axes by angles uniform in [0, pi]."""
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
    """Draw held-out clouds (clouds, points, 3) and rotations (clouds, rotations, 3, 3), always the same."""
    generator, device = Generator().manual_seed(0), clouds.sizes.device
    everyone = torch.arange(len(clouds.sizes))
    source = clouds.to("cpu").draw(everyone, config.points, generator)
    rotation = ROTATIONS[config.rotations](
        len(everyone), config.validation_rotations, device="cpu", generator=generator
    )
    return source.to(device), rotation.to(device)


@torch.no_grad()
def errors_in_degrees(model: nn.Module, source: Tensor, rotation: Tensor) -> Tensor:
    """Return geodesic errors (clouds, rotations), a few clouds at a time: 2^16 points, or one cloud's."""
    few = max(1, 2**16 // (source.shape[1] * (1 + rotation.shape[1])))
    return torch.cat(
        [
            torch.rad2deg(svdrot.geodesic_distance(model(clouds, truth), truth))
            for clouds, truth in zip(source.split(few), rotation.split(few), strict=True)
        ]
    )
