"""Which rotation representation does a network learn best? The alignment of point clouds.

A siamese PointNet sees a cloud and a rotated copy of it and regresses the rotation R, copy = R cloud, by one
of the heads of `svdrot.nn.RotationHead`. All see the same clouds, rotations and initial trunk. Expected: the
continuous representations far ahead. Mean errors on airplanes after a full training, in degrees: svd
2.90, 6d 3.01, quaternion 11.66, axis-angle 12.74 (Brégier 2021); svd 1.63, 6d 2.24 (Levinson 2020).

    python -m experiments.rotation.pointcloud_alignment                          quick, on generated shapes
    python -m experiments.rotation.pointcloud_alignment --data planes --root FOLDER
    python -m experiments.rotation.pointcloud_alignment --full --data planes     as published: days on a CPU

The second makes the published results with --seeds 0 1 2 3 4 --steps 7000 --heads svd 6d quaternion
axis_angle euler 10d 5d 2vec mrp --out experiments/results/rotation/pointcloud_alignment, and with
--loss clouds --out experiments/results/rotation/pointcloud_alignment_self_supervised.

A command that was stopped goes on where it was when it is given again, and ends in the same numbers to the
last bit. More --heads and --seeds may be added to a folder: what is finished is not trained again.

Cloud and copy have the same points, so that principal axes are exact without a network, and the benchmark
measures what a head learns, not alignment; all heads have one learning rate.

The loss is, unless --loss says otherwise, half the squared Frobenius distance, its mean over the pairs of a
step (Levinson: the sum, but Adam does not notice). The weights of the last step are evaluated: none are
chosen by their validation error.

Protocol: Zhou et al. 2019, "On the Continuity of Rotation Representations in Neural Networks"; Levinson et
al. 2020, "An Analysis of SVD for Deep Rotation Estimation"; Brégier 2021, "Deep Regression on Manifolds: A 3D
Rotation Case Study".
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import svdrot
from experiments import shared
from experiments.rotation import _comparison
from experiments.rotation._principal_axes import EXACT, by_principal_axes
from experiments.shared import alignment
from experiments.shared.alignment import prepare
from experiments.shared.clouds import Data
from experiments.shared.heads import Representation
from experiments.shared.settings import Out


@dataclass(frozen=True)
class Config(alignment.Config):
    out: Out = Path("runs/rotation/pointcloud_alignment")
    heads: tuple[Representation, ...] = ("svd", "6d", "quaternion", "axis_angle", "euler")
    """Representations to compare."""

    def __post_init__(self):
        super().__post_init__()
        shared.heads.check(self.heads)


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
    out=Path("runs/rotation/pointcloud_alignment-full"),
)


EXPECTED = tuple((good, bad) for good in ("svd", "6d") for bad in ("quaternion", "axis_angle", "euler"))


def run(config: Config) -> shared.results.Rows:
    """Train what the run folder lacks, write the report, and return its rows, one per head and seed."""
    data = alignment.load(config)
    free = ("root", *_comparison.FREE)
    results = shared.training.run(
        config, config.trainings, config.heads, prepare, data=data.digest(), free=free
    )
    with shared.run.replacing(config.out / "errors.npz") as new:
        found = {f"{head}-{seed}": result["examined"]["errors"] for (head, seed), result in results.items()}
        np.savez_compressed(new, **{name: errors.numpy() for name, errors in found.items()})
    texts = {"setting": setting(config, data), "note": without_network(config, data)}
    return _comparison.write(config.out, config, results, unit="degrees", expected=EXPECTED, **texts)


def setting(config: Config, data: Data) -> str:
    drawn = f"{config.points} of their points" if config.points else "all their points"
    kinds = f"{config.data} ({', '.join(config.families)})" if config.data == "shapes" else config.data
    return (
        f"{kinds}: {len(data.training.sizes):,} training and {len(data.validation.sizes)} validation "
        f"clouds, {drawn}; {config.steps:,} steps of {config.clouds} clouds x {config.copies} copies, "
        f"{config.loss} loss, projection {config.strategy}, {config.optimizer}, learning rate "
        f"{config.learning_rate:g}, decay {config.decay}, clip {config.clip}; widths "
        f"3-{'-'.join(map(str, config.widths))}, {config.hidden} hidden; {config.rotations} rotations, "
        f"{config.validation_rotations} fixed ones per validation cloud; "
        f"{config.device}."
    )


def without_network(config: Config, data: Data) -> str:
    """Tell what the principal axes make of the clouds and rotations that the heads are examined on."""
    source, rotation = (tensor.cpu() for tensor in alignment.examination(config, data.validation))
    found = by_principal_axes(source[:, None], source[:, None] @ rotation.mT)
    degrees = torch.rad2deg(svdrot.geodesic_distance(found, rotation))
    return f"{EXACT} Here their mean error is {degrees.mean():.2f} degrees."


if __name__ == "__main__":
    shared.run.main(run, Config(), __doc__, {"--full": FULL})
