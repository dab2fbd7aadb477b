r"""Do Muon and its relatives train a network that regresses rotations better than AdamW does?

The network is that of `experiments.shared.alignment` with the svd head, on generated shapes: all
optimizers take the same number of steps from the same weights, on the same clouds and rotations, with the
same warm-up, decay and clipping. Muon, MuonEq, MiMuon and ROOT step the hidden matrices (w -> w', 2 w'' ->
hidden); the biases, the layer that reads the coordinates and the head go to AdamW, at the rate that is best
for AdamW alone. No optimizer decays weights, as in the experiment on heads.

1. Each optimizer's learning rate is the best of its own grid, powers of the square root of 10, by the mean
   error after a short training with a seed of its own, on one half of the held-out objects. A grid whose best
   rate lies at the edge is extended.
2. With these rates, longer trainings with other seeds. Their errors are on the other half. AdamW is also
   trained for twice the steps: a step of the others is dearer.

Expected, before the first run: Muon ahead of AdamW, by 10 % or more of its final mean error; MuonEq within
10 % of Muon; MiMuon between the two, nearer to momentum descent with the larger tau; ROOT, whose clipping is
made for outliers that are not here, not ahead of Muon.

MiMuon's tau is relative to the largest singular value. Gaps of wide matrices are small: the median is 8e-5 of
the norm for a Gaussian 128 x 128. The two taus are chosen to be on both sides of what the momenta here have;
the part of matrix steps that was orthogonalized says if they were. Other options are those of the classes.

With three seeds one optimizer is called better than another only if each of its errors is smaller than each
of the other's: without a difference that would happen, either way, once in ten comparisons. The learning
rates are from a single seed and a shorter training, and no better than that.

    python -m experiments.orthogonalization.muon_pose                          a minute on two cores
    python -m experiments.orthogonalization.muon_pose --steps 1500 --tuning-steps 500 --clouds 16 --points 32
    python -m experiments.orthogonalization.muon_pose --full                   on the network of the heads

The second makes the published results with --out experiments/results/orthogonalization/muon_pose.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from datasets import shapes
from experiments import shared
from experiments.orthogonalization import _muon_pose_report as report
from experiments.shared import alignment
from experiments.shared.clouds import Clouds, Data, check_families
from experiments.shared.settings import Amount, Count, Out, Seed, Settings, Share, Threads
from svdrot.optim import ROOT, MiMuon, Muon, MuonEq, Stack, split_parameters, update_only

Rows = list[dict[str, Any]]


class CountedMiMuon(MiMuon):
    """It keeps count of the matrices that were orthogonalized: the others come back as they were."""

    matrices = orthogonalized = 0

    @update_only
    def direction(self, update: Tensor, stack: Stack) -> Tensor:
        found = super().direction(update, stack)
        self.matrices += len(found)
        self.orthogonalized += int((found != update).flatten(1).any(1).sum())
        return found


# The grids are exponents k of learning rates 10^(k/2). MuonEq and ROOT have the step size that takes AdamW's
# rates, Muon and MiMuon the original one; MiMuon's momentum steps are shorter than its orthogonal ones.
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], range]] = {
    "AdamW": (torch.optim.AdamW, range(-7, -3)),
    "Muon": (Muon, range(-5, -1)),
    "MuonEq": (MuonEq, range(-7, -3)),
    "MiMuon, tau 1e-6": (partial(CountedMiMuon, tau=1e-6, relative=True), range(-4, 0)),
    "MiMuon, tau 1e-4": (partial(CountedMiMuon, tau=1e-4, relative=True), range(-3, 1)),
    "ROOT": (ROOT, range(-7, -3)),
}


@dataclass(frozen=True)
class Config(Settings):
    optimizers: tuple[str, ...] = tuple(OPTIMIZERS)
    """Keys of OPTIMIZERS; AdamW is one of them, for the others need its rate."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Of the trainings to compare: initial weights, clouds and rotations."""
    tuning_seed: Seed = 100
    steps: Count = 200
    """Of a training to compare."""
    tuning_steps: Count = 100
    """Of one for the learning rate."""
    extensions: Amount = 2
    """Times that a grid may be extended by a rate."""
    families: tuple[str, ...] = ("bracket", "hammer", "crane", "tree")
    """Kinds of shapes."""
    clouds: Count = 8
    """In a step."""
    copies: Count = 4
    """Rotated ones of each of them."""
    points: Count = 24
    """Of each cloud."""
    widths: tuple[Count, Count, Count] = (32, 64, 128)
    """Features of a point after each layer of the encoder."""
    hidden: Count = 128
    """Units between the encodings and the head."""
    warmup: Share = 0.05
    """Part of the steps."""
    training_shapes: Count = 320
    validation_shapes: Count = 160
    """Half of them for the learning rates."""
    validation_rotations: Count = 4
    """Of each of these."""
    evaluations: Count = 20
    """Along a learning curve."""
    jobs: Threads = 2
    """Trainings at a time, each in a process."""
    threads: Threads = 1
    """Of each process."""
    out: Out = Path("runs/orthogonalization/muon_pose")

    def __post_init__(self):
        super().__post_init__()
        check_families(self.families)
        unknown = set(self.optimizers) - set(OPTIMIZERS)
        if unknown or "AdamW" not in self.optimizers:
            raise ValueError(
                f"`optimizers` must be AdamW and others of {[*OPTIMIZERS]}; got {self.optimizers}."
            )
        if self.tuning_seed in self.seeds:
            raise ValueError(f"`tuning_seed` must not be one of `seeds`; got {self.tuning_seed}.")


FULL = Config(
    steps=1500,
    tuning_steps=500,
    families=tuple(shapes.FAMILIES),
    clouds=16,
    points=48,
    widths=(32, 64, 256),
    hidden=512,
    training_shapes=1280,
    validation_shapes=320,
    validation_rotations=10,
    evaluations=25,
    out=Path("runs/orthogonalization/muon_pose-full"),
)


def learning_rate(exponent: int) -> float:
    return 10 ** (exponent / 2)


@dataclass(frozen=True)
class Run:
    """One training: all it depends on but the Config."""

    optimizer: str
    exponent: int  # of the learning rate
    adamw_exponent: int  # of that of what is not Muon's
    seed: int
    steps: int
    tuning: bool  # evaluated on the first half of the held-out objects, else on the second

    @property
    def rate(self) -> float:
        return learning_rate(self.exponent)


@dataclass(frozen=True)
class Result:
    run: Run
    mean_deg: float  # infinity if the training diverged
    median_deg: float
    curve: list[dict[str, float]]
    first_loss: float  # of the first step, before it
    ms_per_step: float  # the median: the first steps compile, and the machine has other things to do
    orthogonalized: float  # part of the steps of Muon's matrices


@dataclass(frozen=True)
class Finished(shared.run.Progress):
    result: Result


# A training.


def make_optimizer(
    run: Run, model: torch.nn.Module, adamw: Iterable[torch.nn.Module]
) -> torch.optim.Optimizer:
    make, _ = OPTIMIZERS[run.optimizer]
    if run.optimizer == "AdamW":
        return make(model.parameters(), weight_decay=0.0, fused=True)
    groups = split_parameters(model, adamw)
    groups[-1]["relative_rate"] = learning_rate(run.adamw_exponent) / run.rate
    optimizer = make(groups, weight_decay=0.0)
    optimizer.register_step_pre_hook(_relative_rates)
    return optimizer


def _relative_rates(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Correct AdamW's rate: `Training.advance` gives all groups one rate before each step."""
    for group in optimizer.param_groups:
        group["lr"] *= group.get("relative_rate", 1.0)


def begin(config: Config, run: Run) -> shared.training.Training:
    """Set up a training, before its first step."""
    setting = alignment.Config(
        families=config.families,
        steps=run.steps,
        clouds=config.clouds,
        copies=config.copies,
        points=config.points,
        widths=config.widths,
        hidden=config.hidden,
        learning_rate=run.rate,
        warmup=int(config.warmup * run.steps),
        training_shapes=config.training_shapes,
        validation_shapes=config.validation_shapes,
        validation_rotations=config.validation_rotations,
        evaluations=config.evaluations,
    )
    data = alignment.load(setting)
    half = len(data.validation.sizes) // 2
    chosen = slice(half) if run.tuning else slice(half, None)
    held_out = Clouds(data.validation.points[chosen], data.validation.sizes[chosen])
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        task = alignment.task(setting, alignment.network(setting, "svd"), Data(data.training, held_out))
    state = shared.training.Training(setting, task, run.seed)
    state.optimizer = make_optimizer(run, task.model, task.adamw)
    return state


def train(config: Config, run: Run) -> Iterator[shared.run.Progress]:
    torch.set_num_threads(config.threads)
    state = begin(config, run)
    stage = "tuning" if run.tuning else f"seed {run.seed}"
    name = f"{run.optimizer} {stage} {run.rate:.2g}"
    first_loss, seconds = math.nan, []
    while state.step < run.steps:
        start = perf_counter()
        state.advance()
        seconds.append(perf_counter() - start)
        if state.step == 1:
            first_loss = state.mean_loss()
        if state.step in state.evaluated:
            loss = state.mean_loss()
            if not math.isfinite(loss):
                break
            state.extend_curve(loss)
            yield shared.run.Progress(name, state.step, f"loss {loss:.3f}")
    errors = torch.tensor(math.inf)
    if state.step == run.steps:
        errors = state.measured(state.task.examine)["errors"].nan_to_num(math.inf)
    optimizer = state.optimizer
    orthogonalized = float(run.optimizer != "AdamW")
    if isinstance(optimizer, CountedMiMuon):
        orthogonalized = optimizer.orthogonalized / optimizer.matrices
    result = Result(
        run=run,
        mean_deg=errors.mean().item(),
        median_deg=errors.median().item(),
        curve=state.curve,
        first_loss=first_loss,
        ms_per_step=1000 * median(seconds),
        orthogonalized=orthogonalized,
    )
    yield Finished(name, run.steps, "", result)


# The two stages.


def tune(config: Config, task: tuple[str, int | None]) -> Iterator[shared.run.Progress]:
    """Run the short trainings of an optimizer, with the exponent of AdamW's rate, None for AdamW itself."""
    name, adamw = task
    errors: dict[int, float] = {}
    missing = list(OPTIMIZERS[name][1])
    most = len(missing) + config.extensions
    while missing and len(errors) < most:
        k = missing.pop()
        run = Run(name, k, k if adamw is None else adamw, config.tuning_seed, config.tuning_steps, True)
        for event in train(config, run):
            if isinstance(event, Finished):
                errors[k] = event.result.mean_deg
            yield event
        missing = missing or _beyond(errors)


def best(errors: dict[int, float]) -> int:
    """Return the exponent of the smallest error."""
    return min(errors, key=lambda k: errors[k])


def _beyond(errors: dict[int, float]) -> list[int]:
    """List the exponents next to the best one that are missing: none inside the grid."""
    return [k for k in (best(errors) - 1, best(errors) + 1) if k not in errors]


def finished(events: Iterable[shared.run.Progress], steps: int) -> list[Result]:
    """Collect the results among the events of trainings of so many steps, which are shown."""
    found = []

    def kept() -> Iterator[shared.run.Progress]:
        for event in events:
            if isinstance(event, Finished):
                found.append(event.result)
            yield event

    shared.run.show(kept(), steps)
    return found


def run(config: Config) -> dict[str, Any]:
    """Return rows of the tables `final`, `seeds` and `tuning`, and the `curves` of each optimizer."""
    errors: dict[str, dict[int, float]] = {name: {} for name in config.optimizers}
    tried: list[Result] = []
    for names in (["AdamW"], [name for name in config.optimizers if name != "AdamW"]):
        adamw = best(errors["AdamW"]) if errors["AdamW"] else None
        events = shared.run.in_parallel(partial(tune, config), [(name, adamw) for name in names], config.jobs)
        tried += finished(events, config.tuning_steps * sum(len(OPTIMIZERS[name][1]) for name in names))
        for result in tried:
            errors[result.run.optimizer][result.run.exponent] = result.mean_deg
    tuning = [
        {
            "optimizer": name,
            "rate": result.run.rate,
            "mean deg": result.mean_deg,
            "median deg": result.median_deg,
            "chosen": result.run.exponent == best(errors[name]),
            "inside the grid": not _beyond(errors[name]),
        }
        for name in config.optimizers
        for result in sorted(tried, key=lambda result: result.run.exponent)
        if result.run.optimizer == name
    ]

    trainings = {name: (name, config.steps) for name in config.optimizers}
    trainings[report.TWICE] = ("AdamW", 2 * config.steps)
    runs = {
        (label, seed): Run(name, best(errors[name]), best(errors["AdamW"]), seed, steps, False)
        for seed in config.seeds
        for label, (name, steps) in trainings.items()
    }
    events = shared.run.in_parallel(partial(train, config), [*runs.values()], config.jobs)
    by_run = {result.run: result for result in finished(events, sum(run.steps for run in runs.values()))}
    results = {key: by_run[run] for key, run in runs.items()}
    by_label = {label: [results[label, seed] for seed in config.seeds] for label in trainings}
    seeds = [
        {
            "optimizer": label,
            "seed": result.run.seed,
            "steps": result.run.steps,
            "mean deg": result.mean_deg,
            "median deg": result.median_deg,
            "first loss": result.first_loss,
            "last loss": result.curve[-1]["loss"] if math.isfinite(result.mean_deg) else math.inf,
            "ms per step": result.ms_per_step,
        }
        for label, of_seeds in by_label.items()
        for result in of_seeds
    ]
    final = [summary(label, of_seeds, by_label["AdamW"]) for label, of_seeds in by_label.items()]
    curves = {label: [result.curve for result in of_seeds] for label, of_seeds in by_label.items()}
    return {"final": final, "seeds": seeds, "tuning": tuning, "curves": curves}


def summary(label: str, results: list[Result], reference: list[Result]) -> dict[str, Any]:
    """Make a row of the final table; `reference` are AdamW's results with the same seeds."""
    errors = torch.tensor([result.mean_deg for result in results], dtype=torch.float64)
    medians = torch.tensor([result.median_deg for result in results], dtype=torch.float64)
    over = errors / torch.tensor([result.mean_deg for result in reference], dtype=torch.float64)
    times = torch.tensor([result.ms_per_step for result in results])
    return {
        "optimizer": label,
        "rate": results[0].run.rate,
        "mean deg": errors.mean().item(),
        "lowest": errors.min().item(),
        "highest": errors.max().item(),
        "median deg": medians.mean().item(),
        "lowest median": medians.min().item(),
        "highest median": medians.max().item(),
        "over AdamW": over.mean().item(),
        "lowest ratio": over.min().item(),
        "highest ratio": over.max().item(),
        "orthogonalized": sum(result.orthogonalized for result in results) / len(results),
        "ms per step": times.median().item(),
    }


def main(config: Config) -> None:
    rows = run(config)
    tables = {
        f"After {config.steps:,} steps, {len(config.seeds)} seeds": rows["final"],
        "Every training": rows["seeds"],
        f"Learning rates, {config.tuning_steps:,} steps, another seed": rows["tuning"],
    }
    shared.results.write(config.out, config, tables, report.figure(rows), report.verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__, {"--full": FULL})
