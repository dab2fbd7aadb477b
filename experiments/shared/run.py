"""What every experiment shares: its command line, its run folder, its files, and its processes."""

import csv
import importlib
import io
import json
import multiprocessing
import os
import platform
import queue
import re
import shlex
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from experiments.shared.settings import Settings
from svdrot.io import files

ROOT = Path(__file__).resolve().parents[2]
Config = TypeVar("Config", bound=Settings)


class UserError(ValueError):
    """A command that cannot be carried out, for a reason that who gave it can do something about."""


REFUSED, INTERRUPTED = 2, 130  # exit codes


def main(
    experiment: Callable[[Config], object],
    default: Config | type[Config],
    description: str | None,
    presets: Mapping[str, Config] | None = None,
) -> None:
    """Run an experiment with the settings of the command line.

    What the user can mend ends the program with one line on stderr: settings without a meaning, data that is
    missing, folders that are taken or cannot be written, too little memory. So does Ctrl-C, with what is kept
    of the work. Any other exception is a mistake of ours, and keeps its traceback.
    """
    config = None
    try:
        config = parse(default, description, presets)
        _check_folders(config)
        experiment(config)
        return
    except (UserError, OSError) as error:
        code, said = REFUSED, str(error)
    except (MemoryError, torch.OutOfMemoryError) as error:
        code, said = REFUSED, f"not enough memory: {error} Take smaller settings."
    except KeyboardInterrupt:
        code, said = INTERRUPTED, f"interrupted. {config.left() if config else 'Nothing was done.'}"
    # Here, not above: bars of progress end with the frames that the exception held.
    print(f"{Path(sys.argv[0]).stem}: {_with_options(' '.join(said.split()), default)}", file=sys.stderr)
    sys.exit(code)


def _with_options(text: str, config: Any) -> str:
    """Spell names of settings, which errors have in backticks, as the command line does."""
    for field in fields(config):
        text = text.replace(f"`{field.name}`", f"--{field.name.replace('_', '-')}")
    return text


def _check_folders(config: Any) -> None:
    """Refuse folders that cannot be written, hours before the first file is."""
    for name in ("out", "run_folder"):
        if (folder := getattr(config, name, None)) is None:
            continue
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            wrong = "may not be written to" if there.is_dir() else "is a file"
            raise UserError(f"`{name}` must be a folder that can be made and written; {there} {wrong}.")


def parse(
    default: Config | type[Config], description: str | None, presets: Mapping[str, Config] | None = None
) -> Config:
    """Read the settings of the command line.

    Args:
        default: instance of a frozen dataclass, one flag per field; or the class, if there are fields without
            a default.
        description: for `--help`.
        presets: other defaults by the flag that chooses them, as `{"--full": Config(...)}`.

    Raises:
        UserError: if a flag is unknown, or a value has no meaning.
    """
    import tyro  # like all that only some commands need, where it is used

    arguments = sys.argv[1:]
    for flag, preset in (presets or {}).items():
        if flag in arguments:
            arguments.remove(flag)
            default = preset
    cli = partial(tyro.cli, args=arguments, description=description, prog=shlex.join(_launched()))
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return cli(default) if isinstance(default, type) else cli(type(default), default=default)
    except SystemExit as error:
        if not error.code:  # --help
            raise
    raise UserError(f"{_said(box.getvalue())} See --help.")


def _said(box: str) -> str:
    """Return the first paragraph below the title of a box that tyro draws around an error, in Unicode or
    ASCII.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    _, *lines = (line for row in plain.splitlines() if (line := row.strip("│| ")))
    paragraphs = "\n".join("" if not line.strip("╰╯─-") else line for line in lines).strip().split("\n\n")
    text = " ".join(paragraphs[0].split()).rstrip(".")
    return re.sub(r"^Error parsing (?!-)\w+: ", "", text) + "."


def command() -> str:
    """Return the command line of this process, to be printed beside what it made."""
    return shlex.join([*_launched(), *sys.argv[1:]])


def _launched() -> list[str]:
    """Return what stands before the arguments."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    script = ["-m", module.name] if module else sys.argv[:1]
    if dist.is_torchelastic_launched():
        return ["torchrun", "--nproc_per_node", os.environ["LOCAL_WORLD_SIZE"], *script]
    return ["python", *script]


def open_folder(folder: Path, config: Any, *, free: Iterable[str], data: str) -> None:
    """Make a run folder, or return to one that was made with the same settings on the same data.

    `config.json` holds the settings, `data` and, for each command that changed any of it, the git commit, the
    version of torch and the machine.

    Args:
        folder: of the run.
        config: instance of a dataclass.
        free: fields that may differ from those of the earlier command.
        data: a digest of the data.

    Raises:
        UserError: if the folder was made with another value of a field that is not free, or on other data.
    """
    file = folder / "config.json"
    now = json.loads(json.dumps({**asdict(config), "data_sha256": data}, default=str))
    before = _earlier(file) if file.exists() else {"settings": now, "commands": []}
    flag = "--run-folder" if now.get("run_folder") else "--out"
    for name in [name for name in now | before["settings"] if name not in set(free)]:
        if before["settings"].get(name) != now.get(name):
            raise UserError(
                f"{folder} was made with `{name}` = {before['settings'].get(name)!r}; this command has "
                f"{now.get(name)!r}. Give it another folder by {flag}, or delete this one."
            )
    here = {"command": command(), **environment()}
    commands = before["commands"] if here in before["commands"][-1:] else [*before["commands"], here]
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(file) as new:
        new.write_text(json.dumps({"settings": now, "commands": commands}, indent=2) + "\n")


def _earlier(file: Path) -> dict[str, Any]:
    try:
        before = json.loads(file.read_text())
        if {"settings", "commands"} <= before.keys():
            return before
        error = "`settings` or `commands` are missing"
    except (ValueError, AttributeError) as broken:
        error = str(broken)
    raise UserError(f"{file} cannot be read: {error}. Delete its folder, or take another.")


def environment() -> dict[str, str]:
    """Name code, torch and machine that a result depends on."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        of_code = [*git, "status", "--porcelain", "--", ".", ":!experiments/results"]
        changes = subprocess.run(of_code, capture_output=True, text=True).stdout.strip()
        commit = "none" if head.returncode else head.stdout.strip() + (" with changes" if changes else "")
    except FileNotFoundError:
        commit = "unknown: git is not installed"
    accelerator = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return {
        "commit": commit,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}{accelerator}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peer(name: str) -> Any:
    """Import a library that results are compared with; without it, an experiment ends with a line.

    Raises:
        ImportError: if it does not load, and no experiment is the program.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        program = getattr(sys.modules["__main__"], "__spec__", None)
        if not getattr(program, "name", "").startswith("experiments."):
            raise ImportError(f"{name} does not load: {error}", name=name) from error
        told = f"this compares with {name}, which does not load: {error}. Install it by `make peers`"
        needs = ", and the system libraries libusb-1.0, libGL and libX11" if name == "open3d" else ""
        print(f"{Path(sys.argv[0]).stem}: {told}{needs}.", file=sys.stderr)
        sys.exit(REFUSED)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a path to write to, which replaces `file` when the block ends well: never half a file.

    Raises:
        UserError: if the system cannot write it.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(file) as new:
            yield new
    except OSError as error:
        raise UserError(
            f"{file} cannot be written: {error.strerror or error}. Make room for it, or take another folder."
        ) from error


def save(file: Path, content: Any) -> None:
    """Save as `torch.save`, which tells of a full disk by a RuntimeError of its archive."""
    archive = io.BytesIO()
    torch.save(content, archive)
    with replacing(file) as new:
        new.write_bytes(archive.getbuffer())


def write_csv(file: Path, rows: list[dict[str, Any]]) -> None:
    with replacing(file) as new, new.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep a run folder to this process; the system gives it back however the process ends.

    Raises:
        UserError: if another process has it, with its command and number.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(folder / "lock", timeout=0), folder / "lock-owner.txt"
    try:
        lock.acquire()
    except Timeout as error:
        by = owner.read_text() if owner.exists() else "another command"
        raise UserError(f"{folder} is in use by {by}. Wait for its end, or take another folder.") from error
    try:
        owner.write_text(f"`{command()}`, process {os.getpid()} on {platform.node()}")
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Progress:
    """Where a task is."""

    task: str
    step: int  # of its own; the first one reported is where it resumed
    note: str  # empty before there is anything to say, and when there is nothing more


Task = TypeVar("Task")
Event = TypeVar("Event")


def show(events: Iterable[Progress], total: int) -> None:
    """Draw the steps of all tasks as one bar, with the latest note of each unfinished one."""
    from tqdm import tqdm

    steps: dict[str, int] = {}
    notes: dict[str, str] = {}
    # A log file gets a line's worth now and then, a terminal a moving bar.
    with tqdm(
        total=total, unit="step", mininterval=0.5 if sys.stderr.isatty() else 20, dynamic_ncols=True
    ) as bar:
        for event in events:
            if event.task not in steps:
                bar.initial += event.step  # not of this command: keeps the rate honest
            notes.pop(event.task, None)
            if event.note:
                notes[event.task] = f"{event.task}: {event.note}"
            bar.set_postfix_str(" | ".join(notes.values()), refresh=False)
            bar.update(event.step - steps.get(event.task, 0))
            steps[event.task] = event.step


def in_parallel(
    work: Callable[[Task], Iterator[Event]], tasks: list[Task], jobs: int
) -> Generator[Event, None, None]:
    """Yield what the generators `work(task)` do, as it comes, from `jobs` processes if more than one.

    `work` and the tasks are pickled. The processes end with this one, however it ends.

    Raises:
        UserError or OSError: as a process does.
        RuntimeError: if a process fails in any other way, with its traceback.
    """
    if jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield from work(task)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    todo, news = context.SimpleQueue(), context.Queue()
    workers = [context.Process(target=_work, args=(work, todo, news), daemon=True) for _ in range(jobs)]
    with deaf_to_interrupts():
        for worker in workers:
            worker.start()
    for task in [*tasks, *[None] * jobs]:
        todo.put(task)
    try:
        while any(worker.is_alive() for worker in workers) or not news.empty():
            try:
                event, failure = news.get(timeout=1)
            except queue.Empty:
                continue
            if isinstance(failure, Exception):
                raise failure
            if failure:
                raise RuntimeError(f"a worker process failed:\n{failure}")
            yield event
        killed = [worker.exitcode for worker in workers if worker.exitcode]
        if killed:
            raise RuntimeError(f"worker processes ended with exit codes {killed}: killed, or out of memory?")
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _work(work: Callable[[Any], Iterator[Any]], todo: Any, news: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        while (task := todo.get()) is not None:
            for event in work(task):
                news.put((event, None))
    except (UserError, OSError) as error:
        news.put((None, error))
    except Exception:  # the parent raises it again
        news.put((None, traceback.format_exc()))


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Keep Ctrl-C, which the terminal sends to all, from processes started in the block: we end them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_parent() -> None:
    """End with a killed parent: it cannot end its workers, and the next command must not find them."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# Processes of torchrun. Without it there is one, of rank 0.


@contextmanager
def processes(device: str) -> Iterator[None]:
    """Join the other processes of torchrun, if it started this one."""
    if not dist.is_torchelastic_launched():
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def processes_number() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


Value = TypeVar("Value")


def of_first_process(make: Callable[[], Value]) -> Value:
    """Return in all processes what `make` returns in the first."""
    box = [make() if rank() == 0 else None]
    if processes_number() > 1:
        dist.broadcast_object_list(box)
    return box[0]  # type: ignore


def of_every_process(value: Tensor) -> Tensor:
    """Collect the values of all processes, in the order of their ranks."""
    if processes_number() == 1:
        return value[None].clone()
    found = [torch.empty_like(value) for _ in range(processes_number())]
    dist.all_gather(found, value)
    return torch.stack(found)


def share(items: Tensor) -> Tensor:
    """Take the items of a batch that are this process's: as many for each, that means of means be means."""
    number = processes_number()
    if len(items) % number:
        raise UserError(f"a batch of {len(items)} items cannot be shared equally by {number} processes.")
    return items.tensor_split(number)[rank()]
