"""The GPU benchmark as on a GPU, in a process that pretends to have one: whether its code runs, not how fast.

    python tests/support/gpu_benchmark_worker.py FOLDER [STAGE ...]

Graphs compute when they are replayed, what is compiled stays as it is, and clocks are those of the CPU.
"""

import contextlib
import sys
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from tests.support import pretended_gpu as pretended  # noqa: E402

torch = pretended.torch  # which must not be loaded before


class Event:
    def __init__(self, **_):
        pass

    def record(self):
        self.at = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 1e3 * (other.at - self.at)


class Profile:
    """Events that torch's profiler would see."""

    def __init__(self, **_):
        pass

    def __enter__(self):
        self.first = len(pretended.EVENTS)
        return self

    def __exit__(self, *_):
        kinds = [e.kind for e in pretended.EVENTS[self.first :] if e.kind in ("launch", "kernel")]
        self.found = [SimpleNamespace(device_type=SimpleNamespace(name="CUDA")) for _ in kinds]

    def events(self):
        return self.found


def pretend() -> None:
    stream = SimpleNamespace(wait_stream=lambda other: None)
    stubs = {
        "is_available": lambda: True,
        "is_bf16_supported": lambda *a, **k: True,
        "init": lambda: None,
        "device_count": lambda: 2,
        "get_device_name": lambda *a: "pretended",
        "get_device_properties": lambda *a: SimpleNamespace(name="pretended", total_memory=2**37),
        "mem_get_info": lambda *a: (2**37, 2**37),
        "memory_allocated": lambda *a: 0,
        "max_memory_allocated": lambda *a: 4096,
        "Event": Event,
        "Stream": lambda: stream,
        "current_stream": lambda *a: stream,
        "stream": lambda s: contextlib.nullcontext(),
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        "graph": lambda g: contextlib.nullcontext(),
    }
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats", "set_sync_debug_mode"):
        stubs[name] = lambda *a: None
    for name, stub in stubs.items():
        getattr(torch.cuda, name)  # or torch has it no more
        setattr(torch.cuda, name, stub)
    torch.profiler.profile = Profile
    torch.compile = lambda f, **_: f
    torch.linalg.polar = lambda m: (m, m)  # which torch may come to have
    svd = torch.linalg.svd
    torch.linalg.svd = lambda *a, driver=None, **k: svd(*a, **k)


def main() -> None:
    out, *stages = sys.argv[1:]
    pretend()
    from experiments.benchmarks import _device, _gpu, gpu
    from experiments.benchmarks._gpu import compilation, host, iteration, offsets, tests

    captured = _device.captured

    def replayable(call):
        graph, result = captured(call)

        def replay():
            for mine, new in zip(pretended.tree_leaves(result), pretended.tree_leaves(call()), strict=True):
                mine.copy_(new)

        graph.replay = replay
        return graph, result

    _device.captured = replayable
    compilation.DTYPES, iteration.MATRICES, offsets.REPEATED = ("float32",), 1, 8
    host.ROWS, host.CALLS = 4, 1
    subjects = host.subjects
    host.subjects = lambda device: dict(list(subjects(device).items())[:1])
    tests.FILES = tests.FILES[:1]
    sizes = _gpu.Sizes(
        copies=(1 << 12,),
        matrices=40,
        portion=20,
        offsets=19,
        speeds=(4, 8),
        svd=4,
        squares=(4,),
        factors=2,
        rows=4,
        samples=50,
        clouds=2,
        points=8,
        sides=(16,),
        rounds=3,
        pause=0.001,
        maps=("axis_angle_to_matrix",),
        functions=("svdrot.slerp", "svdrot.nn.RotationLoss.forward", "svdrot.random_rotation"),
    )
    config = _gpu.Config(
        device="cuda", stages=tuple(stages) or _gpu.STAGES, seconds=2000.0, jobs=1, out=Path(out)
    )
    with pretended.record():
        gpu.main(config, sizes)


if __name__ == "__main__":
    main()
