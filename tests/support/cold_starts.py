"""Processes that use kernels for the first time: from many threads, at once, and from damaged files.

    python tests/support/cold_starts.py threads 200    processes, each of eight threads, with nothing on disk
    python tests/support/cold_starts.py processes 64    at the same time, of four threads, on one empty folder
    python tests/support/cold_starts.py damaged 200    processes, each of which finds a file that was damaged

Ends with the first process that fails. Run by `test_kernel_files`, with fewer.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]

USE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import torch, svdrot
from svdrot._kernels.cpu.compiler import kept
kept.folders = lambda: [Path(sys.argv[1])]
threads, m = int(sys.argv[2]), torch.randn(100, 4, 4)
with ThreadPoolExecutor(threads) as pool:
    factors = list(pool.map(svdrot.orthogonalize, [m] * 8 * threads))
    rotations = list(pool.map(svdrot.special_orthogonalize, [m[:, :3, :3]] * 8 * threads))
assert (factors[0].mT @ factors[0] - torch.eye(4)).abs().max() < 1e-5
assert svdrot.is_rotation(rotations[0]).all() and all(torch.equal(r, rotations[0]) for r in rotations)
assert all(torch.equal(q, factors[0]) for q in factors)
print("numba" in sys.modules)
"""

# What power cuts, full disks and copies leave of a file.
DAMAGES = {
    "empty": lambda code, place: b"",
    "cut": lambda code, place: code[:place],
    "without its last byte": lambda code, place: code[:-1],
    "longer": lambda code, place: code + b"\0",
    "zeros": lambda code, place: bytes(len(code)),
    "a page of zeros": lambda code, place: (code[:place] + bytes(4096) + code[place + 4096 :])[: len(code)],
    "one bit": lambda code, place: code[:place] + bytes([code[place] ^ 1]) + code[place + 1 :],
    "its first half again": lambda code, place: code[: len(code) // 2] * 2,
    "text": lambda code, place: b"<html>404</html>",
}


def start(folder: Path, threads: int = 1) -> subprocess.Popen:
    """A process that projects in threads; it prints whether it had to compile loops."""
    command = [sys.executable, "-c", USE, str(folder), str(threads)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)


def end(process: subprocess.Popen) -> tuple[bool, list[str]]:
    """Whether a process compiled, and its warnings."""
    out, errors = process.communicate()
    assert process.returncode == 0, f"exit code {process.returncode}\n{errors}"
    return out.strip() == "True", [line for line in errors.splitlines() if "RuntimeWarning" in line]


def counted(items: Iterable) -> Iterator:
    for k, item in enumerate(items, 1):
        yield item
        print(k, end=" ", flush=True)


def threads(number: int) -> None:
    for _ in counted(range(number)):
        with tempfile.TemporaryDirectory() as folder:
            assert end(start(Path(folder), threads=8)) == (True, [])


def processes(number: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        running = [start(Path(folder), threads=4) for _ in range(number)]
        for process in counted(running):
            assert end(process)[1] == []
        (file,) = Path(folder).iterdir()
        assert end(start(Path(folder))) == (False, [])
        file.write_bytes(file.read_bytes()[:-1])
        compiled, (warning,) = end(start(Path(folder)))
        assert compiled and str(file) in warning


def damaged(number: int) -> None:
    chance = Random(0)
    with tempfile.TemporaryDirectory() as folder:
        end(start(Path(folder)))
        (file,) = Path(folder).iterdir()
        code = file.read_bytes()
        for k in counted(range(number)):
            name = list(DAMAGES)[k % len(DAMAGES)]
            file.write_bytes(DAMAGES[name](code, chance.randrange(len(code))))
            compiled, (warning,) = end(start(Path(folder)))
            assert compiled and str(file) in warning, name
        assert end(start(Path(folder))) == (False, [])


if __name__ == "__main__":
    {"threads": threads, "processes": processes, "damaged": damaged}[sys.argv[1]](int(sys.argv[2]))
    print(f"{sys.argv[1]}: {sys.argv[2]} without a failure")
