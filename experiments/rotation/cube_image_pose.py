"""Which head learns best to tell how a cube is turned, from one image of it?

A cube with six colored faces, turned uniformly, is seen by a camera; a network of two layers looks at all
pixels and puts out the rotation. There are 2,048 images to learn from, as many to watch the training by and
as many to test: enough to learn, few enough for what is learnt by heart to matter.

Expected (Geist et al. 2024, experiment 2.1, ten seeds; a figure, no table): svd and 6d alike and ahead;
quaternions, rotation vectors and Euler angles behind, whatever their loss. Nothing is expected between svd
and 6d, nor for raw, which they train by another loss.

    python -m experiments.rotation.cube_image_pose                    quick: 32 x 32 pixels, 30 epochs
    python -m experiments.rotation.cube_image_pose --full             64 x 64 pixels, up to 1,000 epochs

The first makes the published results with --out experiments/results/rotation/cube_image_pose
--run-folder runs/rotation/cube_image_pose.

`--full` stops, as published, after ten epochs without a better validation error, and tests the weights that
it then has. The published scene, another cube in another light, is not reproduced, so that their errors are
not to be compared with. Images of a step are drawn with replacement.

Protocol: Geist et al., "Learning with 3D rotations, a hitchhiker's guide to SO(3)", ICML 2024, section 5.2
and the published code.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

import svdrot
from datasets import cubes
from experiments import shared
from experiments.rotation import _comparison
from experiments.shared.heads import HEADS, Head
from experiments.shared.settings import Count, Out, Positive, Seed
from experiments.shared.statistics import spread
from svdrot import losses

EPOCH = 64  # steps: 2,048 images, 32 at a time


@dataclass(frozen=True)
class Config(shared.training.Config):
    heads: tuple[Head, ...] = tuple(HEADS)
    """Representations, or "raw": nine numbers, projected at inference only."""
    size: Count = 32
    """Pixels along each edge of an image."""
    images: Count = 2048
    """Of training, of validation and of the test, each."""
    batch: Count = 32
    """Images of a step."""
    hidden: Count = 256
    """Units of each of the two layers."""
    seeds: tuple[Seed, ...] = (0, 1, 2, 3, 4)
    steps: Count = 30 * EPOCH
    learning_rate: Positive = 1e-3
    evaluations: Count = 20
    out: Out = Path("runs/rotation/cube_image_pose")

    def __post_init__(self):
        super().__post_init__()
        shared.heads.check(self.heads)


FULL = Config(
    size=64,
    seeds=tuple(range(10)),
    steps=1000 * EPOCH,
    evaluations=1000,
    patience=10,
    decay="none",
    warmup=0,
    clip=None,
    out=Path("runs/rotation/cube_image_pose-full"),
)

EXPECTED = [(good, bad) for good in ("svd", "6d") for bad in ("quaternion", "axis_angle", "euler")]


@lru_cache(1)
def load(images: int, size: int) -> list[tuple[Tensor, Tensor]]:
    """Return images (images, 3, size, size) and rotations, of training, of validation and of the test."""
    parts = []
    for seed in range(3):
        rotations = svdrot.random_rotation(images, generator=Generator().manual_seed(seed))
        parts.append((cubes.render(rotations, size), rotations))
    return parts


class ImagePose(nn.Module):
    """Rotations (..., 3, 3) of the cubes in images (..., 3, size, size)."""

    def __init__(self, head: str, size: int, hidden: int):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Flatten(-3),
            nn.Linear(3 * size**2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
        )
        self.head = svdrot.nn.RotationHead(hidden, *HEADS[head])

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images))


def loss(model: nn.Module, images: Tensor, rotations: Tensor) -> Tensor:
    return losses.squared_chordal(model(images), rotations).mean() / 2


def errors(model: nn.Module, images: Tensor, rotations: Tensor) -> Tensor:
    return torch.rad2deg(svdrot.geodesic_distance(model(images), rotations))


def prepare(config: Config, head: str, seed: int) -> shared.training.Task:
    model = ImagePose(head, config.size, config.hidden).to(config.device)
    training, validation, test = (
        (images.to(config.device), rotations.to(config.device))
        for images, rotations in load(config.images, config.size)
    )

    def draw(generator: Generator) -> tuple[Tensor, ...]:
        which = torch.randint(config.images, (config.batch,), device=config.device, generator=generator)
        return tuple(items[which] for items in training)

    return shared.training.Task(
        model,
        draw,
        loss,
        evaluate=lambda model: {"mean_deg": errors(model, *validation).mean().item()},
        examine=lambda model: {
            "errors": errors(model, *test).cpu(),
            "training_deg": errors(model, *training).mean().item(),
        },
        adamw=(model.trunk[1], model.head),
    )


def run(config: Config) -> _comparison.Rows:
    """Train what the run folder lacks, write the results, and return a row for each head and seed."""
    results = shared.training.run(
        config, config.trainings, config.heads, prepare, data="rendered", free=_comparison.FREE
    )
    setting = (
        f"{config.images:,} images of {config.size} x {config.size} pixels; {config.steps:,} steps of"
        f" {config.batch}, two layers of {config.hidden}, learning rate {config.learning_rate:g}, decay"
        f" {config.decay}, patience {config.patience}."
    )
    note = about_training(results)
    return _comparison.write(
        config.out, config, results, unit="degrees", expected=EXPECTED, setting=setting, note=note
    )


def about_training(results: _comparison.Results) -> str:
    """Tell the mean errors on the images that were learned from."""
    found: dict[str, list[float]] = {}
    for (head, _), result in results.items():
        found.setdefault(head, []).append(result["examined"]["training_deg"])
    told = ", ".join(f"{head} {spread(values)}" for head, values in found.items())
    return f"On the images of the training itself the mean errors are, in degrees: {told}."


if __name__ == "__main__":
    shared.run.main(run, Config(), __doc__, {"--full": FULL})
