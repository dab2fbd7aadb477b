"""Can a network learn to put out the rotation that it is shown?

The nine entries of a uniform rotation go through three layers of 128 units and a head; what comes out should
be the same rotation. No data, no noise, nothing to generalize: what is left of the error is the head's fault.

Expected, from the paper, mean errors in degrees after 500,000 steps: 6d and 5d 0.49, quaternion 3.32, Euler
6.98; 6d and 5d never off by more than 2, all others up to 180 somewhere, since they must break off somewhere.
The order holds in a short training too, at larger errors; of svd, 10d, 2vec and raw, continuous as they are,
the same is expected as of 6d.

    python -m experiments.rotation.sanity_autoencoder                    quick: 4,000 steps
    python -m experiments.rotation.sanity_autoencoder --full             500,000 steps, as published

The first makes the published results with --out experiments/results/rotation/sanity_autoencoder
--run-folder runs/rotation/sanity_autoencoder.

Protocol: Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019, section
5.1 and the published code.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Generator, Tensor, nn

import svdrot
from experiments import shared
from experiments.rotation import _comparison
from experiments.shared.heads import HEADS, Head
from experiments.shared.settings import Count, NotNegative, Out, Positive, Seed
from svdrot import losses


@dataclass(frozen=True)
class Config(shared.training.Config):
    heads: tuple[Head, ...] = tuple(HEADS)
    """Representations, or "raw": nine numbers, projected at inference only."""
    loss: Literal["chordal", "geodesic"] = "chordal"
    """Mean squared difference of the entries, or mean angle; raw matrices have no angle."""
    batch: Count = 64
    """Rotations of a step."""
    hidden: Count = 128
    """Units of each layer."""
    slope: NotNegative = 0.01
    """Of the leaky ReLU below zero."""
    tests: Count = 10_000
    """Fixed rotations of the final test; the learning curves use the first fifth."""
    seeds: tuple[Seed, ...] = (0, 1, 2, 3, 4)
    steps: Count = 4_000
    learning_rate: Positive = 1e-3
    checkpoint_every: Count = 2_000
    out: Out = Path("runs/rotation/sanity_autoencoder")

    def __post_init__(self):
        super().__post_init__()
        shared.heads.check(self.heads)
        if self.loss == "geodesic" and "raw" in self.heads:
            raise ValueError('`loss` "geodesic" asks for rotations: leave "raw" out of `heads`.')


FULL = Config(
    steps=500_000,
    learning_rate=1e-5,
    decay="drop",
    warmup=0,
    clip=None,
    evaluations=50,
    out=Path("runs/rotation/sanity_autoencoder-full"),
)

EXPECTED = [(good, bad) for good in ("svd", "6d", "5d") for bad in ("quaternion", "axis_angle", "euler")]
EXPECTED += [("svd", "6d"), ("quaternion", "euler"), ("svd", "raw")]


class Autoencoder(nn.Module):
    def __init__(self, head: str, hidden: int, slope: float):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(9, hidden),
            nn.LeakyReLU(slope),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(slope),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(slope),
        )
        self.head = svdrot.nn.RotationHead(hidden, *HEADS[head])

    def forward(self, rotation: Tensor) -> Tensor:
        return self.head(self.encoder(rotation.flatten(-2)))


def chordal_loss(model: nn.Module, rotation: Tensor) -> Tensor:
    return losses.squared_chordal(model(rotation), rotation).mean() / 9


def geodesic_loss(model: nn.Module, rotation: Tensor) -> Tensor:
    return losses.geodesic(model(rotation), rotation).mean()


LOSSES = {"chordal": chordal_loss, "geodesic": geodesic_loss}


def prepare(config: Config, head: str, seed: int) -> shared.training.Task:
    model = Autoencoder(head, config.hidden, config.slope).to(config.device)
    test = svdrot.random_rotation(config.tests, generator=Generator().manual_seed(2**31)).to(config.device)

    def errors(model: nn.Module, rotation: Tensor) -> Tensor:
        return torch.rad2deg(svdrot.geodesic_distance(model(rotation), rotation))

    def draw(generator: Generator) -> tuple[Tensor]:
        return (svdrot.random_rotation(config.batch, device=config.device, generator=generator),)

    return shared.training.Task(
        model,
        draw,
        LOSSES[config.loss],
        evaluate=lambda model: {"mean_deg": errors(model, test[: -(-len(test) // 5)]).mean().item()},
        examine=lambda model: {"errors": errors(model, test).cpu()},
        adamw=(model.encoder[0], model.head),
    )


def run(config: Config) -> _comparison.Rows:
    """Train what the run folder lacks, write the results, and return a row for each head and seed."""
    results = shared.training.run(
        config, config.trainings, config.heads, prepare, data="uniform rotations", free=_comparison.FREE
    )
    setting = (
        f"{config.steps:,} steps of {config.batch} uniform rotations, {config.loss} loss, learning rate"
        f" {config.learning_rate:g}, decay {config.decay}; {config.tests:,} others tested."
    )
    note = about_the_worst(results)
    return _comparison.write(
        config.out, config, results, unit="degrees", expected=EXPECTED, setting=setting, note=note
    )


def about_the_worst(results: _comparison.Results) -> str:
    """Tell how far off each head is somewhere, the least over its seeds."""
    heads = dict.fromkeys(head for head, _ in results)
    worst = {
        head: min(
            result["examined"]["errors"].max().item() for (name, _), result in results.items() if name == head
        )
        for head in heads
    }
    told = ", ".join(f"{head} {worst[head]:.3g}" for head in sorted(worst, key=worst.__getitem__))
    return f"The largest error of a test, in the best training of each head: {told} degrees."


if __name__ == "__main__":
    shared.run.main(run, Config(), __doc__, {"--full": FULL})
