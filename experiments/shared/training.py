"""The loop of every experiment that trains: steps on batches it draws, learning curves, several seeds.

An experiment has a `Config` that inherits the one below, and a function that prepares the `Task` of a variant
(a head, a strategy) and a seed; `run` trains each variant with each seed. A command that was killed goes on
where it was when it is given again, and ends in the same numbers to the last bit: all randomness of a step
comes from the generator its batch is drawn from. Started as

    torchrun --nproc_per_node 2 -m experiments.rotation.pointcloud_alignment

two processes, with a GPU each if `device` is cuda, share each batch, and end where one does up to rounding.

A run folder holds a checkpoint per training, the learning curves (curves.csv; their seconds apart, in
times.csv) and the same for TensorBoard. One command at a time may use it.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from time import perf_counter
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from experiments.shared import curves
from experiments.shared import run as _run
from experiments.shared.optimizers import OPTIMIZERS, Decay, relative_rate
from experiments.shared.run import of_first_process, processes_number, rank
from experiments.shared.settings import (
    Amount,
    Count,
    Device,
    NotNegative,
    Out,
    Part,
    Positive,
    Seed,
    Settings,
    Threads,
)


@dataclass(frozen=True)
class Config(Settings):
    out: Out = Path("runs/training")
    run_folder: Path | None = None
    """Folder that what it takes to go on after an interruption goes into; None: that of the results."""
    seeds: tuple[Seed, ...] = (0,)
    """One training of each variant per seed, which sets the initial weights and the batches."""
    steps: Count = 3000
    """Optimizer steps of a training."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Muon takes the hidden matrices, with AdamW's step size, and leaves the rest to it."""
    learning_rate: Positive = 2e-3
    """The highest one."""
    warmup: Amount = 100
    """Steps over which the learning rate rises to it."""
    decay: Decay = "cosine"
    """From there to zero at the last step; to a tenth after a fiftieth of the steps; or not at all."""
    weight_decay: NotNegative = 0.0
    """Decoupled."""
    clip: Positive | None = 1.0
    """Largest norm of a gradient: longer ones are shortened to it."""
    average: Part = 0.0
    """Decay per step of a moving average of the weights, which is then what is evaluated; 0 for none."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of autocast; float16 with a scaled loss."""
    evaluations: Count = 25
    """Along a learning curve."""
    patience: Count | None = None
    """Evaluations without a new best figure that end a training. Its last weights count, not the best."""
    checkpoint_every: Count = 1000
    """Steps."""
    device: Device = "cpu"
    """Or cuda."""
    jobs: Threads = 2
    """Trainings at a time, each in a process."""
    threads: Threads = 1
    """Of each process."""

    def __post_init__(self):
        super().__post_init__()
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` must differ; got {self.seeds}.")

    @property
    def trainings(self) -> Path:
        return self.run_folder or self.out

    def left(self) -> str:
        return f"Checkpoints are kept in {self.trainings}: give the same command again to go on from them."


# Settings that change no result, or only which there are.
FREE = ("seeds", "checkpoint_every", "jobs", "out", "run_folder")


@dataclass(frozen=True)
class Task:
    """What is trained, on what, and how well it does; all on the device."""

    model: nn.Module
    draw: Callable[[Generator], tuple[Tensor, ...]]  # the batch of a step, items in the first dimensions
    loss: Callable[..., Tensor]  # of the model and a batch, or some items of it: the mean over the items
    evaluate: Callable[[nn.Module], dict[str, float]]  # a point of the curve, the figure of `patience` first
    examine: Callable[[nn.Module], dict[str, Any]]  # of the trained model: tensors on the CPU, and numbers
    adamw: tuple[nn.Module, ...] = ()  # parts of the model that Muon leaves alone: its first and last layer
    relative_rate: float = 1.0  # its learning rate, over that of the config


Key = tuple[str, int]  # variant and seed
Prepare = Callable[[Any, str, int], Task]  # of the experiment's Config, a variant and a seed


def run(
    config: Config, folder: Path, variants: Iterable[str], prepare: Prepare, *, data: str, free: Iterable[str]
) -> dict[Key, dict[str, Any]]:
    """Train what the folder lacks, and return what it holds of each variant and seed.

    Args:
        config: all that trainings depend on besides the variant and the data.
        folder: of the run: a new one, or that of an earlier command with the same settings.
        variants: names, as files may have; more may be added to a folder later.
        prepare: a function of a module. Torch's default generator is seeded with the seed when it is called.
        data: a digest of the data.
        free: fields of the config that may differ from those of an earlier command.

    Returns:
        By variant and seed: `examined`, from `Task.examine`; `model`, the state dict that it examined;
        `curve`, a list of points with step, loss, seconds and the figures of `Task.evaluate`; `step`;
        `seconds` of the steps alone. Of several processes of torchrun only the first returns.

    Raises:
        UserError: if the folder was made with other settings or on other data, if another command uses it, or
            if a loss is not finite.
        RuntimeError: if a training fails in a process of its own.
    """
    keys = [(variant, seed) for seed in config.seeds for variant in dict.fromkeys(variants)]

    def open_folder() -> list[Key]:
        _run.open_folder(folder, config, free={*FREE, *free}, data=data)
        return [key for key in keys if "examined" not in load_checkpoint(folder, key)]

    with _run.processes(config.device), _run.alone_in(folder) if rank() == 0 else nullcontext():
        missing = of_first_process(open_folder)
        jobs = config.jobs if processes_number() == 1 else 1
        with closing(_run.in_parallel(partial(train, config, folder, prepare), missing, jobs)) as progress:
            if rank() > 0:
                for _ in progress:
                    pass
                sys.exit()
            if missing:
                _run.show(progress, len(missing) * config.steps)
        results = {key: load_checkpoint(folder, key) for key in keys}
        curves.write(folder, results)
    return results


def train(config: Config, folder: Path, prepare: Prepare, key: Key) -> Iterator[_run.Progress]:
    """Train one variant with one seed, from its checkpoint if any, until that holds what was examined."""
    torch.set_num_threads(config.threads)
    variant, seed = key
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = Training(config, prepare(config, variant, seed), seed)
    state.restore(load_checkpoint(folder, key))
    name = f"{variant} {seed}"
    yield _run.Progress(name, state.step, "")
    with curves.scalars(folder / "tensorboard" / f"{variant}-{seed}", state.curve) as add_scalars:
        start = perf_counter()
        while not state.ended():
            state.advance()
            saved, evaluated = state.step % config.checkpoint_every == 0, state.step in state.evaluated
            if not (saved or evaluated or state.step % SHOWN_EVERY == 0):
                continue
            loss = state.mean_loss()
            if not math.isfinite(loss):
                raise _run.UserError(
                    f"the loss of {name} became {loss} before step {state.step}: lower the `learning_rate`."
                )
            state.seconds += perf_counter() - start
            if evaluated:
                state.extend_curve(loss)
                add_scalars(state.curve[-1])
            if saved:
                save_checkpoint(folder, key, state.content())
            last = [f"{k} {v:.3g}" for k, v in state.curve[-1].items()][FIGURE] if state.curve else ""
            yield _run.Progress(name, state.step, f"loss {loss:.3f} {last}")
            start = perf_counter()
    numbers = {name: getattr(state, name) for name in ("step", "seconds", "curve")}
    examined = of_first_process(lambda: state.measured(state.task.examine))
    model = state.evaluated_model().state_dict()
    save_checkpoint(folder, key, {**numbers, "model": model, "examined": examined})
    yield _run.Progress(name, state.step, "")


SHOWN_EVERY = 25  # steps
FIGURE = 3  # of a point of a curve: the first number that `Task.evaluate` gave


class Training:
    """All that the rest of a training depends on."""

    def __init__(self, config: Config, task: Task, seed: int):
        self.config, self.task = config, task
        parallel = processes_number() > 1
        self.replica = nn.parallel.DistributedDataParallel(task.model) if parallel else task.model
        self.optimizer = OPTIMIZERS[config.optimizer](task.model, config.weight_decay, task.adamw)
        device, dtype = torch.device(config.device), getattr(torch, config.precision)
        self.autocast = partial(torch.autocast, device.type, dtype, enabled=dtype != torch.float32)
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.average = None
        if config.average:
            self.average = AveragedModel(task.model, multi_avg_fn=get_ema_multi_avg_fn(config.average))
        self.generator = Generator(device).manual_seed(seed)
        steps, n = config.steps, config.evaluations
        self.evaluated = {math.ceil(steps * i / n) for i in range(1, n + 1)}
        self.step, self.seconds = 0, 0.0  # of the steps alone
        self.curve: curves.Curve = []
        self.loss_sum, self.loss_steps = torch.zeros((), device=device), 0  # since the curve's last point

    def advance(self) -> None:
        """Take a step of the optimizer. Every process draws the whole batch, and takes its share."""
        config = self.config
        batch = [_run.share(items) for items in self.task.draw(self.generator)]
        with self.autocast():
            loss = self.task.loss(self.replica, *batch)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        if config.clip is not None:
            nn.utils.clip_grad_norm_(self.task.model.parameters(), config.clip)
        rate = config.learning_rate * self.task.relative_rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate * relative_rate(self.step, config.steps, config.warmup, config.decay)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update_parameters(self.task.model)
        self.loss_sum += loss.detach()
        self.loss_steps += 1
        self.step += 1

    def mean_loss(self) -> float:
        total = self.loss_sum.clone()
        if processes_number() > 1:
            dist.all_reduce(total)
        return total.item() / (self.loss_steps * processes_number())

    def extend_curve(self, loss: float) -> None:
        figures = of_first_process(lambda: self.measured(self.task.evaluate))
        self.curve.append({"step": self.step, "loss": loss, "seconds": self.seconds, **figures})
        self.loss_sum.zero_()
        self.loss_steps = 0

    def ended(self) -> bool:
        figures = [[*point.values()][FIGURE] for point in self.curve]
        since_best = len(figures) - 1 - figures.index(min(figures)) if figures else 0
        return self.step == self.config.steps or since_best >= (self.config.patience or math.inf)

    def evaluated_model(self) -> nn.Module:
        return self.average.module if self.average else self.task.model

    def measured(self, measure: Callable[[nn.Module], dict[str, Any]]) -> dict[str, Any]:
        model = self.evaluated_model()
        training = model.training
        with torch.no_grad(), self.autocast():
            figures = measure(model.eval())
        model.train(training)
        return figures

    def parts(self) -> dict[str, Any]:
        """Return the parts that have a state dict."""
        parts = {"weights": self.task.model, "optimizer": self.optimizer, "scaler": self.scaler}
        return parts | ({"average": self.average} if self.average else {})

    def content(self) -> dict[str, Any]:
        numbers = ("step", "seconds", "loss_steps", "curve")
        return {
            **{name: getattr(self, name) for name in numbers},
            "loss_sums": _run.of_every_process(self.loss_sum),
            **{name: part.state_dict() for name, part in self.parts().items()},
            "generator": self.generator.get_state(),
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Go on from `content`, or from the beginning if it is empty."""
        if not content:
            return
        for name, part in self.parts().items():
            part.load_state_dict(content[name])
        self.generator.set_state(content["generator"])
        sums = content["loss_sums"]  # of as many processes, or else their mean
        self.loss_sum.copy_(sums[rank()] if len(sums) == processes_number() else sums.mean())
        self.loss_steps, self.step = content["loss_steps"], content["step"]
        self.seconds, self.curve = content["seconds"], content["curve"]


# Files of a run folder.


def checkpoint(folder: Path, key: Key) -> Path:
    return folder / "checkpoints" / f"{key[0]}-{key[1]}.pt"


def load_checkpoint(folder: Path, key: Key) -> dict[str, Any]:
    """Load what was saved of a training, empty if nothing; `examined` is in it when it is finished.

    Raises:
        UserError: with the file, if it is broken or something else.
    """
    file = checkpoint(folder, key)
    if not file.exists():
        return {}
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        if {"step", "seconds", "curve"} <= content.keys():
            return content
        error = f"it holds {', '.join(map(str, content)) or 'nothing'}"
    except (EOFError, RuntimeError, UnpicklingError, AttributeError) as broken:
        error = " ".join(str(broken).split()) or "it is empty"
    raise _run.UserError(f"{file} is no checkpoint; delete it, and the training begins anew: {error}.")


def save_checkpoint(folder: Path, key: Key, content: dict[str, Any]) -> None:
    if rank() == 0:
        _run.save(checkpoint(folder, key), content)
