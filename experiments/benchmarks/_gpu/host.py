"""What a call costs the host, as it comes, compiled and as a CUDA graph; whether compiled calls are right.

Compiled whole (fullgraph), for any number of rows (dynamic), and with CUDA graphs (reduce-overhead).
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

import svdrot
from experiments.benchmarks import _device
from experiments.benchmarks._calls import difference
from experiments.benchmarks._gpu import Report

COST, COST_ON_CPU = 40, 3
ROWS, CALLS = 64, 200
LIMIT = 1e-5  # in float32
WAYS: dict[str, dict[str, Any]] = {
    "compiled, fullgraph": {"fullgraph": True},
    "compiled, dynamic": {"fullgraph": True, "dynamic": True},
    "compiled, reduce-overhead": {"fullgraph": True, "mode": "reduce-overhead"},
}


def subjects(device: str) -> dict[str, tuple[Callable[..., Any], list[Tensor]]]:
    """Functions and their arguments."""
    m, a, b = torch.randn(3, ROWS, 3, 3, device=device)
    r = svdrot.special_orthogonalize(a)
    points = torch.randn(ROWS, 20, 3, device=device)
    moved = points @ r.mT

    def aligned(x: Tensor, y: Tensor) -> Tensor:
        return svdrot.registration.kabsch(x, y).rotation

    return {
        "special_orthogonalize": (svdrot.special_orthogonalize, [m]),
        "geodesic_distance": (svdrot.geodesic_distance, [r, svdrot.special_orthogonalize(b)]),
        "matrix_to_quaternion": (svdrot.matrix_to_quaternion, [r]),
        "kabsch": (aligned, [points, moved]),
    }


def stage(report: Report) -> None:
    device = report.config.device
    given = subjects(device)
    for name in report.each(given, "functions as they come"):
        for which, call in passes(*given[name]).items():
            costs(report, name, which, "eager", call)
            if report.gpu:
                graph, result = _device.captured(call)
                costs(report, name, which, "graph", graph.replay)
                del graph, result
    if not report.gpu:
        report.omit("compiled calls, which the tests have on CPUs")
        return
    for name, way in report.each([(n, w) for n in given for w in WAYS], "compiled functions"):
        compiled(report, name, way, *given[name])


def passes(f: Callable[..., Any], x: list[Tensor]) -> dict[str, Callable[[], Any]]:
    leaves = [t.detach().clone().requires_grad_() for t in x]
    w = torch.ones_like(f(*x))

    def both() -> Any:
        result = f(*leaves)
        return result, *torch.autograd.grad(result, leaves, w)

    return {"forward": lambda: f(*x), "forward + backward": both}


def costs(report: Report, name: str, which: str, way: str, call: Callable[[], Any]) -> None:
    for _ in range(3):
        call()
    _wait(report)
    start = perf_counter()
    for _ in range(CALLS):
        call()
    host = perf_counter() - start
    _wait(report)
    whole = perf_counter() - start
    row = {"function": name, "pass": which, "way": way}
    row |= {"host µs": 1e6 * host / CALLS, "with the device µs": 1e6 * whole / CALLS}
    report.add(f"Cost of a call of {ROWS} rows", **row)


def _wait(report: Report) -> None:
    if report.gpu:
        torch.cuda.synchronize()


def compiled(report: Report, name: str, way: str, f: Callable[..., Any], x: list[Tensor]) -> None:
    torch.compiler.reset()
    try:
        calls, plain = passes(torch.compile(f, **WAYS[way]), x), passes(f, x)
        off = 0.0
        for which, call in calls.items():
            # Results of replays are overwritten by the next one.
            first = [t.clone() for t in _several(call())]
            again = [t.clone() for t in _several(call())]
            expected = _several(plain[which]())
            off = max(off, difference(tuple(first), expected), difference(tuple(again), expected))
            costs(report, name, which, way, call)
        if "dynamic" in way:
            fewer = [t[: ROWS // 2] for t in x]
            found, expected = passes(torch.compile(f, **WAYS[way]), fewer), passes(f, fewer)
            off = max(off, difference(_several(found["forward"]()), _several(expected["forward"]())))
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        report.add("What does not compile", function=name, way=way, error=said)
        return
    report.judge(f"{name}, {way}, difference", f"at most {LIMIT:g}", off, off <= LIMIT, "Checks")


def _several(found: Any) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)
