"""A small experiment on the training loop, and processes that run it: shared, killed, two at a time.

    python tests/support/training_worker.py run STEPS FOLDER/OPTIMIZER [...]      or, one, by torchrun
    python tests/support/training_worker.py kills FOLDER NUMBER     of kills
    python tests/support/training_worker.py two FOLDER

It ends with an assertion if what the loop promises does not hold. Run by `test_training`.
"""

import json
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.utils.tensorboard
from torch import nn

import svdrot
from experiments import shared


@dataclass(frozen=True)
class Config(shared.training.Config):
    steps: int = 100
    warmup: int = 5
    evaluations: int = 4
    checkpoint_every: int = 7  # a large share of the time goes into writing
    average: float = 0.9
    jobs: int = 1


def prepare(config: Config, variant: str, seed: int) -> shared.training.Task:
    """Rotations from themselves, with noise."""
    first, head = nn.Linear(9, 16), svdrot.nn.RotationHead(16, variant)
    model = nn.Sequential(first, nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), head)

    left = int(os.environ.get("BATCHES_TO_LIVE", 1_000_000))

    def draw(generator):
        nonlocal left
        left -= 1
        if left < 0:
            os._exit(3)
        rotation = svdrot.random_rotation(8, generator=generator)
        return rotation + 0.1 * torch.randn(8, 3, 3, generator=generator), rotation

    def loss(model, noisy, rotation):
        return (model(noisy.flatten(1)) - rotation).square().sum((-2, -1)).mean()

    held_out = draw(torch.Generator().manual_seed(100))

    def evaluate(model):
        return {"error": float(loss(model, *held_out))}

    def examine(model):
        return {"error": evaluate(model)["error"], "estimates": model(held_out[0].flatten(1))}

    return shared.training.Task(model, draw, loss, evaluate, examine, adamw=(first, head))


def run(folder: Path, config: Config) -> dict:
    results = shared.training.run(config, folder, ("svd",), prepare, data="none", free=())
    metrics = {f"{variant}-{seed}": r["examined"]["error"] for (variant, seed), r in results.items()}
    with shared.run.replacing(folder / "metrics.json") as new:
        new.write_text(json.dumps(metrics))
    return results


def metrics(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("metrics.json", "curves.csv")]


def fork(folder: Path) -> int:
    """The number of a new process that runs the experiment, and ends with 2 if the folder is taken."""
    if child := os.fork():
        return child
    sys.stderr = errors(folder, os.getpid()).open("w")
    try:
        run(folder, Config())
        os._exit(0)
    except shared.run.UserError as error:
        sys.stderr.write(str(error))
        sys.stderr.flush()
        os._exit(2)
    finally:
        os._exit(1)


def errors(folder: Path, process: int) -> Path:
    """What a process wrote to its standard error. One file each: progress bars of several would mingle."""
    return folder.parent / f"errors-{process}.txt"


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kills(root: Path, number: int) -> None:
    """Runs are killed at random moments; whatever they had done, the next ends as if nothing had been."""
    root.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    assert exit_code(fork(root / "undisturbed")) == 0
    seconds = time.monotonic() - start
    expected = metrics(root / "undisturbed")
    chance, k, killed = random.Random(0), 0, 0
    while killed < number:
        child = fork(root / f"killed-{k}")
        time.sleep(chance.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        code = exit_code(child)
        assert code in (0, -signal.SIGKILL)
        if code == 0 or chance.random() < 0.2:
            assert exit_code(fork(root / f"killed-{k}")) == 0
            assert metrics(root / f"killed-{k}") == expected
            check_scalars(root / f"killed-{k}")
            k += 1
        killed += code != 0
    assert exit_code(fork(root / f"killed-{k}")) == 0
    assert metrics(root / f"killed-{k}") == expected
    check_scalars(root / f"killed-{k}")


def check_scalars(folder: Path) -> None:
    """Every point of a curve is in the event files once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for training in (folder / "tensorboard").iterdir():
        events = EventAccumulator(str(training)).Reload()
        assert [event.step for event in events.Scalars("error")] == [25, 50, 75, 100]


def two(root: Path) -> None:
    """A second command is refused while the first goes on, which does not notice."""
    assert exit_code(fork(root / "alone")) == 0
    first = fork(root / "shared")
    while not (root / "shared" / "checkpoints").exists():
        time.sleep(0.001)
    for _ in range(3):
        second = fork(root / "shared")
        assert exit_code(second) == 2
        message = errors(root / "shared", second).read_text()
        assert f"process {first} on" in message and "in use" in message, message
    assert exit_code(first) == 0
    assert metrics(root / "shared") == metrics(root / "alone")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1)])  # torch imports much for it: once here, not in every fork
    what, first, *more = sys.argv[1:]
    if what == "run":
        torch.set_default_dtype(torch.float64)
        for folder in map(Path, more):
            run(folder, Config(steps=int(first), optimizer=folder.name))
    elif what == "kills":
        kills(Path(first), int(more[0]))
    else:
        two(Path(first))
