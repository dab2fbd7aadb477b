"""Which head learns best to turn the joints of a person so that every node is where it was seen?

A network sees the positions of the 57 nodes of a skeleton and puts out a rotation for each of its 43 joints;
the loss is how far forward kinematics then leaves the nodes from where they were. Frames are of people in
motion, turned about the vertical at random; whole clips are held out.

Expected, errors in centimeters: 6d 1.9, 5d 2.0, quaternion 3.3, raw matrices 22.9 (Zhou 2019); svd 0.721, 6d
0.796, rotation vector 1.695, quaternion 1.948 (Brégier 2021); svd 1.61, 6d 1.70 (Levinson 2020). So {svd, 6d}
before {quaternion, axis-angle, Euler}, these before raw, and svd before 6d by little. Most joints hardly turn
(half of these angles are below 3 degrees), which flatters heads of few numbers: what separates them is the
first joint, turned all around. After a short training errors are several times larger.

    python -m experiments.rotation.inverse_kinematics                    quick
    python -m experiments.rotation.inverse_kinematics --full             as published: days on a CPU

The first makes the published results with --out experiments/results/rotation/inverse_kinematics
--run-folder runs/rotation/inverse_kinematics.

`--full` takes frames of all clips for a step where the published code takes 16 to 64 successive frames of
one, and 2,000,000 steps, after which it was evaluated.

Protocol: Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR 2019, section
5.3 and the published code; Brégier, "Deep Regression on Manifolds", 3DV 2021.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

import svdrot
from datasets import bvh, motion
from experiments import shared
from experiments.rotation import _comparison
from experiments.shared.heads import HEADS, Head
from experiments.shared.settings import Count, NotNegative, Out, Seed
from svdrot.nn import REPRESENTATIONS, STRATEGIES


@dataclass(frozen=True)
class Config(shared.training.Config):
    root: Path = Path("data/mocap_ik")
    """Folder of the skeleton and the clips."""
    heads: tuple[Head, ...] = tuple(HEADS)
    """Representations, or "raw": nine numbers, projected at inference only."""
    batch: Count = 64
    """Frames of a step."""
    hidden: Count = 256
    """Units of each of the three layers."""
    slope: NotNegative = 0.01
    """Of the leaky ReLU below zero."""
    near_root: NotNegative = 10.0
    """Weight of the nodes next to the first one, in addition to that of all."""
    seeds: tuple[Seed, ...] = (0, 1, 2, 3, 4)
    steps: Count = 1_200
    evaluations: Count = 20
    out: Out = Path("runs/rotation/inverse_kinematics")

    def __post_init__(self):
        super().__post_init__()
        shared.heads.check(self.heads)


FULL = Config(
    hidden=1024,
    steps=2_000_000,
    learning_rate=1e-5,
    decay="none",
    warmup=0,
    clip=None,
    evaluations=200,
    checkpoint_every=10_000,
    out=Path("runs/rotation/inverse_kinematics-full"),
)

EXPECTED = [(good, bad) for good in ("svd", "6d") for bad in ("quaternion", "axis_angle", "euler", "raw")]
EXPECTED += [("svd", "6d")]


@dataclass(frozen=True)
class Data:
    skeleton: bvh.Skeleton  # offsets in meters
    training: Tensor  # rotations of the joints, (frames, joints, 3, 3)
    held_out: Tensor

    def digest(self) -> str:
        digest = hashlib.sha256()
        for rotations in (self.training, self.held_out):
            digest.update(rotations.numpy().tobytes())
        return digest.hexdigest()


@lru_cache(1)
def load(root: Path) -> Data:
    with shared.data.reading(root, "mocap_ik"):
        clips = motion.load(root)
        parts = [torch.cat([clips[k] for k in part]) for part in motion.split(clips)]
    skeleton = clips.skeleton
    meters = bvh.Skeleton(
        skeleton.names, skeleton.parents, skeleton.offsets / 100, skeleton.joints, skeleton.channels
    )
    return Data(meters, *parts)


class InverseKinematics(nn.Module):
    """Rotations of the joints (frames, joints, 3, 3) from positions of the nodes (frames, nodes, 3)."""

    def __init__(self, skeleton: bvh.Skeleton, head: str, hidden: int, slope: float):
        super().__init__()
        self.representation, strategy = HEADS[head]
        joints, features = len(skeleton.joints), REPRESENTATIONS[self.representation].features
        self.trunk = nn.Sequential(
            nn.Linear(3 * len(skeleton.names), hidden),
            nn.LeakyReLU(slope),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(slope),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(slope),
        )
        self.raw = nn.Sequential(nn.Linear(hidden, joints * features), nn.Unflatten(-1, (joints, features)))
        self.strategy = STRATEGIES[strategy]()

    def forward(self, positions: Tensor) -> Tensor:
        return self.strategy(self.raw(self.trunk(positions.flatten(-2))), self.representation)


def turned(rotations: Tensor, angle: Tensor) -> Tensor:
    """Turn frames about the vertical, which is y, by angles (frames,): all follow the first joint."""
    zero = torch.zeros_like(angle)
    yaw = svdrot.axis_angle_to_matrix(torch.stack((zero, angle, zero), -1))
    return torch.cat(((yaw @ rotations[:, 0])[:, None], rotations[:, 1:]), 1)


def prepare(config: Config, head: str, seed: int) -> shared.training.Task:
    data = load(config.root)
    skeleton, training = data.skeleton, data.training.to(config.device)
    model = InverseKinematics(skeleton, head, config.hidden, config.slope).to(config.device)
    beside_root = [node for node, parent in enumerate(skeleton.parents) if parent == 0]
    angles = 2 * math.pi * torch.rand(len(data.held_out), generator=Generator().manual_seed(0))
    seen = bvh.forward_kinematics(skeleton, turned(data.held_out, angles)).to(config.device)

    def draw(generator: Generator) -> tuple[Tensor]:
        def uniform() -> Tensor:
            return torch.rand(config.batch, device=config.device, generator=generator)

        frames = training[(uniform() * len(training)).long().clamp(max=len(training) - 1)]
        return (bvh.forward_kinematics(skeleton, turned(frames, 2 * math.pi * uniform())),)

    def loss(model: nn.Module, positions: Tensor) -> Tensor:
        off = (bvh.forward_kinematics(skeleton, model(positions)) - positions).square()
        return off.mean() + config.near_root * off[:, beside_root].mean()

    def errors(model: nn.Module, positions: Tensor) -> Tensor:
        """Return for each frame the mean distance of its nodes in centimeters."""
        off = bvh.forward_kinematics(skeleton, model(positions)) - positions
        return 100 * off.norm(dim=-1).mean(-1)

    return shared.training.Task(
        model,
        draw,
        loss,
        evaluate=lambda model: {"mean_cm": errors(model, seen[::4]).mean().item()},
        examine=lambda model: {"errors": errors(model, seen).cpu()},
        adamw=(model.trunk[0], model.raw),
    )


def run(config: Config) -> _comparison.Rows:
    """Train what the run folder lacks, write the results, and return a row for each head and seed."""
    data = load(config.root)
    free = ("root", *_comparison.FREE)
    results = shared.training.run(
        config, config.trainings, config.heads, prepare, data=data.digest(), free=free
    )
    setting = (
        f"{len(data.training):,} frames of training and {len(data.held_out):,} of held-out clips;"
        f" {config.steps:,} steps of {config.batch} frames, three layers of {config.hidden}, learning rate"
        f" {config.learning_rate:g}, decay {config.decay}. An error is the mean distance of the 57 nodes of a"
        " frame."
    )
    note = (
        "The seeds vary weights and batches; the clips held out are always the same few, so that nothing is"
        " said of other people or other motions."
    )
    return _comparison.write(
        config.out,
        config,
        results,
        unit="cm",
        expected=EXPECTED,
        setting=setting,
        note=note,
    )


if __name__ == "__main__":
    shared.run.main(run, Config(), __doc__, {"--full": FULL})
