r"""How well can an svd head align airplanes after an hour on two cores? The checkpoint of `evaluate`.

The benchmark is that of `experiments.rotation.pointcloud_alignment`; the network is made for what its head
does. It sends a cloud to K vectors, its landmarks, by a PointNet that knows nothing of rotations. With
those of a cloud x and of its copy y as the columns of V(x) and V(y), the head projects the matrix

    M = V(y) V(x)' / K,

which makes the estimate the Procrustes solution of the landmarks: if they turn with the cloud, V(R x) = R
V(x), it is R exactly. The estimate for a cloud and itself is the identity whatever the landmarks are, since
M is then positive semi-definite: to turn the copy back by the estimate and to estimate again can end at the
truth exactly, because cloud and copy are the same points, as in the protocol. All pairs among a cloud and
its copies are learned from, at the cost of one product.

That is the protocol, and no more: the landmarks may hold on to the very points. A copy with other points of
the same object, as two scans of it are, has others. A network that learns from such copies too
(`--other-points 0.5`: half of the clouds) aligns both.

Points are drawn without replacement, from few to all of a cloud, another number in every step, with noise and
outliers in some of the clouds: trained on 64 points alone, the network is worse with more of them.

Clouds are centered and scaled to a root mean square of 1, the radius: the way from the origin to the center
of an uncentered cloud, which turns with it, tells of the rotation, and would mean nothing in other clouds.

**Copies of the same points need no network.** Their principal axes, with the nearest of four choices of
signs, are exact, and stand beside every figure: the benchmark measures what a network and its head learn,
not alignment.

Expected of all points of a cloud, for one estimate, less than the 2.90 degrees of the literature (Brégier
2021), and below 1 when it is repeated; of noise of 0.5 % of the radius, and of one outlier, no more than a
degree besides.

    torchrun --nproc_per_node 2 -m experiments.rotation.landmark_alignment
    python -m experiments.rotation.landmark_alignment --initial CHECKPOINT          goes on from one

The published results are of a second stage. The first, first_stage.pth in experiments/results/rotation/
landmark_alignment, learned for 24,000 steps, half an hour of two cores, from 64 points of each cloud, drawn
with replacement, without noise or outliers, and by the largest features alone; half of the clouds had copies
with other points. From it

    python -m experiments.rotation.landmark_alignment --clouds 22 --learning-rate 3e-3 --warmup 200 \
        --evaluations 15 --steps 9000 --initial FIRST_STAGE

makes landmark_alignment, and from that, by --other-points 0.5 --steps 3600 --evaluations 6
--validation-rotations 1 in place of theirs, landmark_alignment_other_points is made, with
--out experiments/results/rotation/NAME --run-folder runs/rotation/NAME in both.

The errors are of the 400 held-out airplanes and fixed rotations of each. The checkpoint beside the table
has the weights and all that it takes to build the network.
"""

import hashlib
import math
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn

import svdrot
from experiments import shared
from experiments.rotation._disturbances import FAR, disturbed
from experiments.rotation._landmarks import LandmarkPointNet, Shape, align, normalized, pairs_of
from experiments.rotation._principal_axes import EXACT, by_principal_axes
from experiments.shared.clouds import Clouds
from experiments.shared.settings import Amount, Count, NotNegative, Out, Points, Positive, Share, Threads
from experiments.shared.statistics import metrics
from experiments.shared.training import Task

LIMITS = (5, 10)  # degrees
CHECKPOINT = "svd.pth"


@dataclass(frozen=True)
class Config(shared.training.Config):
    root: Path = Path("data/planes")
    """Folder of the airplanes: of the packed file, or the original pc_plane."""
    out: Out = Path("runs/rotation/landmark_alignment")
    initial: Path | None = None
    """Checkpoint of this experiment that the training begins with; None: random weights."""
    steps: Count = 24_000
    optimizer: Literal["adamw", "muon"] = "muon"
    learning_rate: Positive = 5e-3
    warmup: Amount = 500
    evaluations: Count = 30
    checkpoint_every: Count = 500
    jobs: Threads = 1
    clouds: Count = 32
    """In a step of the fewest points; of more points fewer clouds, an even number, for as many in all."""
    copies: Count = 4
    """Rotated copies of each of them."""
    points: tuple[Points, Points] = ("48", "all")
    """Fewest and most that are drawn from a cloud; their number is another in each step, its logarithm
    uniform."""
    other_points: Share = 0.0
    """Share of the clouds of a step whose copies draw points of their own, as scans of an object do."""
    noisy: Share = 0.5
    """Share of the clouds of a step whose points have noise, in each copy another."""
    noise: NotNegative = 0.01
    """Highest standard deviation of it, in radii; it is uniform below."""
    spoiled: Share = 0.25
    """Share of the clouds of a step in which copies have outliers."""
    outliers: Amount = 3
    """Most of them in a copy."""
    shape: Shape = field(default_factory=Shape)
    validation_rotations: Count = 2
    """Fixed ones of each held-out cloud."""
    passes: Count = 4
    """Estimates, each of what those before it have left."""
    starts: Count = 4
    """Rotations that the passes start from; the best is told by the landmarks alone."""

    def __post_init__(self):
        super().__post_init__()
        fewest, most = map(_number, self.points)
        if fewest > most:
            raise ValueError(f"`points` must not fall; got {' '.join(self.points)}.")


def _number(points: str) -> float:
    return math.inf if points == "all" else int(points)


def load(root: Path) -> shared.clouds.Data:
    data = shared.clouds.airplanes(root)
    return shared.clouds.Data(*(_normalized(clouds) for clouds in (data.training, data.validation)))


def _normalized(clouds: Clouds) -> Clouds:
    rows = zip(clouds.points, clouds.sizes.tolist(), strict=True)
    return Clouds.pack([normalized(points[:size]).numpy() for points, size in rows])


# Training.


def prepare(config: Config, variant: str, seed: int) -> Task:
    data, device = load(config.root).to(config.device), config.device
    model = LandmarkPointNet(config.shape).to(device)
    if config.initial is not None:
        model.load_state_dict(begun(config).state_dict())
    first, second = pairs_of(1 + config.copies)

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        source = views(config, data.training, generator)
        rotation = svdrot.random_rotation(len(source), config.copies, device=device, generator=generator)
        return source, rotation

    def loss(model: nn.Module, source: Tensor, rotation: Tensor) -> Tensor:
        pose = torch.cat([torch.eye(3, device=device).expand(len(source), 1, 3, 3), rotation], 1)
        truth = pose[:, second] @ pose[:, first].mT
        return (model(source @ pose.mT) - truth).square().sum((-2, -1)).mean() / 2

    def evaluate(model: nn.Module) -> dict[str, float]:
        some = Clouds(*(tensor[:FOLLOWED] for tensor in (data.validation.points, data.validation.sizes)))
        estimate = estimators(model, 1, 1)[ONE]
        return {
            curve: errors(estimate, examination(some, points, CONDITIONS[condition], 1)).mean().item()
            for curve, (condition, points) in CURVES.items()
        }

    def examine(model: nn.Module) -> dict[str, Tensor]:
        return {
            f"{condition}; {points}; {name}": errors(
                estimate, examination(data.validation, points, held, config.validation_rotations)
            )
            for condition, held in CONDITIONS.items()
            for points in held.numbers
            for name, estimate in estimators(model, config.passes, config.starts).items()
        }

    return Task(model, draw, loss, evaluate, examine, adamw=(model.encoder[0], model.head))


def begun(config: Config) -> LandmarkPointNet:
    """Load the network that a training begins with."""
    assert config.initial is not None
    try:
        model, settings = restore(config.initial)
    except ValueError as error:
        raise shared.run.UserError(str(error)) from error
    if (shape := Shape(**settings["shape"])) != config.shape:
        raise shared.run.UserError(f"`shape` must be that of {config.initial}, {shape}; got {config.shape}.")
    return model


def views(config: Config, clouds: Clouds, generator: Generator) -> Tensor:
    """Draw clouds and the points of their copies, not yet turned: (clouds, 1 + copies, points, 3)."""
    device, copies = clouds.sizes.device, 1 + config.copies

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, device=device, generator=generator)

    longest = clouds.points.shape[1]
    fewest, most = (min(_number(points), longest) for points in config.points)
    points = round(fewest * (most / fewest) ** uniform().item())
    few = 2 * max(1, config.clouds * int(fewest) // points // 2)  # two processes can share them
    which = torch.randint(len(clouds.sizes), (few,), device=device, generator=generator)
    drawn = clouds.draw_different(which, points, generator)
    source = drawn[:, None].expand(-1, copies, -1, -1)
    if others := round(config.other_points * few):
        again = which[-others:].repeat_interleave(copies)
        own = clouds.draw_different(again, drawn.shape[1], generator).unflatten(0, (others, copies))
        source = torch.cat([source[:-others], own])
    noise = config.noise * uniform(few, 1, 1, 1) * (uniform(few, 1, 1, 1) < config.noisy)
    k = config.outliers
    number = (uniform(few, copies, 1) * (k + 1)).floor() * (uniform(few, 1, 1) < config.spoiled)
    far = torch.where(torch.arange(k, device=device) < number, FARTHEST * uniform(few, copies, k), 0)
    return disturbed(source, noise, far, generator)


FARTHEST = 5.0  # radii, of outliers


# Examination.


class Condition(NamedTuple):
    """What copies are like."""

    numbers: tuple[str, ...] = ("64", "256", "1024", "all")  # of points
    noise: float = 0.0  # standard deviation, in radii
    outliers: int = 0
    other_points: bool = False  # than the cloud has; all then are half of them for each


CONDITIONS = {
    "the same points": Condition(),
    "noise of 0.5 % of the radius": Condition(noise=0.005),
    "one outlier": Condition(outliers=1),
    "other points": Condition(("64", "256", "all"), other_points=True),
}

# Mean errors of one estimate that are followed while learning, on the first held-out clouds.
CURVES = {
    "few_deg": ("the same points", "64"),
    "all_deg": ("the same points", "all"),
    "noise_deg": ("noise of 0.5 % of the radius", "64"),
    "outlier_deg": ("one outlier", "64"),
    "other_deg": ("other points", "64"),
}
FOLLOWED = 100

Estimate = Callable[[Tensor, Tensor], Tensor]  # rotations (..., 3, 3) from clouds to copies that broadcast
Examined = tuple[Tensor, Tensor, Tensor]  # clouds (b, n, 3), copies (b, k, n, 3), rotations (b, k, 3, 3)

AXES, ONE = "principal axes, no network", "one estimate"


def estimators(model: Any, passes: int, starts: int) -> dict[str, Estimate]:
    """List estimators by name, that without a network first."""
    return {
        AXES: by_principal_axes,
        ONE: partial(align, model, passes=1),
        f"{passes} passes, best of {starts} starts": partial(align, model, passes=passes, starts=starts),
    }


def examination(clouds: Clouds, points: str, condition: Condition, rotations: int) -> Iterator[Examined]:
    """Draw points of clouds, copies of these and rotations, always the same, some clouds at a time."""
    generator, device = Generator().manual_seed(0), clouds.sizes.device
    few = 1 if points == "all" else FEW
    clouds = clouds.to("cpu")
    for which in torch.arange(len(clouds.sizes)).split(few):
        whole = clouds.draw_different(which, clouds.points.shape[1], generator)
        source, target = halves(whole, points, condition.other_points)
        truth = svdrot.random_rotation(len(which), rotations, generator=generator)
        copies, far = target[:, None].expand(-1, rotations, -1, -1), torch.full((condition.outliers,), FAR)
        copies = disturbed(copies, condition.noise, far, generator) @ truth.mT
        yield source.to(device), copies.to(device), truth.to(device)


def halves(clouds: Tensor, points: str, other: bool) -> tuple[Tensor, Tensor]:
    """Take as many points, or all, of clouds (..., points, 3) in any order, and the same or as many others
    for copies, of which then there is half.
    """
    n = int(min(_number(points), clouds.shape[-2] // (1 + other)))
    return clouds[..., :n, :], clouds[..., n : 2 * n, :] if other else clouds[..., :n, :]


def errors(estimate: Estimate, examined: Iterable[Examined]) -> Tensor:
    """Return the angles to the truth in degrees, of all copies (clouds x copies,), on the CPU."""
    found = [svdrot.geodesic_distance(estimate(x[:, None], copies), truth) for x, copies, truth in examined]
    return torch.rad2deg(torch.cat([angles.flatten() for angles in found])).cpu()


FEW = 32  # clouds


# The results.


def main(config: Config) -> None:
    digest = load(config.root).digest()
    if config.initial is not None:
        begun(config)
        digest += " and " + hashlib.sha256(config.initial.read_bytes()).hexdigest()
    results = shared.training.run(config, config.trainings, ["svd"], prepare, data=digest, free=("root",))
    result = results["svd", config.seeds[0]]
    save(config.out / CHECKPOINT, config, result["model"])
    shared.results.write(config.out, config, tables(results), figure(result), verdict(result))


def tables(results: dict[Any, dict[str, Any]]) -> dict[str, shared.results.Rows]:
    """Make a table for each condition; a row for each number of points and estimator."""
    found: dict[str, shared.results.Rows] = {captioned(name): [] for name in CONDITIONS}
    for (_, seed), result in results.items():
        for key, examined in result["examined"].items():
            condition, points, estimator = key.split("; ")
            row = {"points": points, "estimator": estimator, "seed": seed, **metrics(examined, LIMITS)}
            found[captioned(condition)].append(row)
    return found


def captioned(condition: str) -> str:
    return f"Copies with {condition}: errors on held-out airplanes, in degrees. {EXACT}"


def save(file: Path, config: Config, weights: dict[str, Tensor]) -> None:
    """Save what `evaluate` needs, loadable with `weights_only=True`."""
    settings = {
        "shape": asdict(config.shape),
        **{n: getattr(config, n) for n in ("points", "passes", "starts")},
    }
    shared.run.save(file, {"config": settings, "state_dict": weights})


def restore(file: Path) -> tuple[LandmarkPointNet, dict[str, Any]]:
    """Load the network of a checkpoint, and its settings.

    Raises:
        ValueError: if it is no checkpoint of this experiment.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        model = LandmarkPointNet(Shape(**content["config"]["shape"]))
        zeros = {"of_means.weight": torch.zeros_like(model.of_means.weight)}  # earlier networks had no means
        model.load_state_dict(zeros | content["state_dict"])
        return model.eval(), content["config"]
    except (pickle.UnpicklingError, UnicodeDecodeError) as error:  # torch advises to load it nevertheless
        raise ValueError(f"{file} is not a checkpoint of landmark_alignment: it holds no tensors.") from error
    except (EOFError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{file} is not a checkpoint of landmark_alignment: {error}") from error


def verdict(result: dict[str, Any]) -> str:
    said = [f"{result['step']:,} steps in {result['seconds'] / 60:.1f} minutes. {EXACT} Means (medians):"]
    for condition, held in CONDITIONS.items():
        parts = []
        for name in dict.fromkeys(key.split("; ")[2] for key in result["examined"]):
            rows = [metrics(result["examined"][f"{condition}; {n}; {name}"]) for n in held.numbers]
            figures = ", ".join(f"{row['mean']:.2f} ({row['median']:.2f})" for row in rows)
            parts.append(f"{name} {figures}")
        said.append(f"Copies with {condition}, by {', '.join(held.numbers)} points: {'; '.join(parts)}.")
    return " ".join(said)


def figure(result: dict[str, Any]) -> Figure:
    panels = Figure(figsize=(12, 5), layout="constrained")
    curve, ends = panels.subplots(1, 2)
    minutes = [point["seconds"] / 60 for point in result["curve"]]
    colors = dict(zip(CONDITIONS, COLORS, strict=True))
    for name, (condition, points) in CURVES.items():
        look = {"ls": "--" if points == "all" else "-", "color": colors[condition]}
        label = f"{condition}, {points}"
        curve.plot(minutes, [point[name] for point in result["curve"]], "o", ms=3, label=label, **look)
    curve.set(yscale="log", xlabel="minutes of training", ylabel="mean error of one estimate, degrees")
    curve.set_title(f"{FOLLOWED} held-out airplanes while learning")
    names = [key.split("; ")[2] for key in result["examined"]]
    for condition, held in CONDITIONS.items():
        for name, line in zip(dict.fromkeys(names), (":", "-", "--"), strict=True):
            means = [
                result["examined"][f"{condition}; {n}; {name}"].mean().clamp_min(1e-3) for n in held.numbers
            ]
            look = {"ls": line, "color": colors[condition], "label": f"{condition}: {name}"}
            ends.plot(held.numbers, means, "o", ms=3, **look)
    ends.set(yscale="log", xlabel="points", ylabel="mean error, degrees", title="at the end")
    for axes in (curve, ends):
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.grid(alpha=0.3, which="both")
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 2}
        axes.legend(frameon=False, fontsize=7, handlelength=4, **place)
    return panels


COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
