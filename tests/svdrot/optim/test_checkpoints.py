"""Checkpoints of optimizers in two processes: in memory, on disk, and after a sudden end."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_optimizers

WORKER = Path(toy_optimizers.__file__).with_name("checkpoint_worker.py")


def start(folder: Path, what: str) -> list[subprocess.Popen]:
    processes = []
    for rank in range(2):
        command = [sys.executable, str(WORKER), str(rank), str(folder / f"meeting-{what}"), str(folder), what]
        with (folder / f"{what}-{rank}.txt").open("w") as said:
            processes.append(subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT))
    return processes


def said(folder: Path, what: str) -> str:
    return "\n".join((folder / f"{what}-{rank}.txt").read_text() for rank in range(2))


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_two_processes_that_are_killed_go_on_from_their_checkpoint(tmp_path):
    """To the last bit as if nothing had been. Before that, states go from one to another in memory."""
    processes = start(tmp_path, "until_killed")
    try:
        end = time.monotonic() + 300
        while said(tmp_path, "until_killed").count("saved") < 2:
            assert [process.poll() for process in processes] == [None, None], said(tmp_path, "until_killed")
            assert time.monotonic() < end, said(tmp_path, "until_killed")
            time.sleep(0.05)
    finally:
        codes = killed(processes)
    assert codes == [-signal.SIGKILL] * 2

    processes = start(tmp_path, "resumed")
    try:
        codes = [process.wait(timeout=300) for process in processes]
    finally:
        killed(processes)
    assert codes == [0, 0], said(tmp_path, "resumed")


def killed(processes: list[subprocess.Popen]) -> list[int]:
    """How they ended."""
    for process in processes:
        process.kill()
    return [process.wait() for process in processes]
