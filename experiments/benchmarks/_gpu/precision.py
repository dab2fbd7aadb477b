"""Under autocast, and where torch may round products to TF32, functions must give what they give without.

All public functions in float32, whose typical calls are done three times: as they come, under autocast to
bfloat16, and with TF32 allowed.
"""

import contextlib
from collections.abc import Iterator

import torch

from experiments.benchmarks import _calls
from experiments.benchmarks._gpu import Report

COST, COST_ON_CPU = 20, 5
LIMIT = 1e-3  # bfloat16 would be off by 4e-3, and TF32 by 5e-4, of single products; of sums by more


def stage(report: Report) -> None:
    device = report.config.device
    ways = ("autocast", "TF32") if report.gpu else ("autocast",)
    functions = _calls.functions(report.sizes.functions)
    for way in ways:
        done, off = 0, 0
        for name, size in report.each(functions, f"functions under {way}"):
            if name in _calls.AMBIGUOUS:
                continue
            done += 1
            try:
                call = _calls.made(name, size, torch.float32, device)
                torch.manual_seed(0)
                expected = call.forward()
                torch.manual_seed(0)
                with under(way, device):
                    found = call.forward()
                difference, error = _calls.difference(found, expected), ""
            except Exception as wrong:
                difference, error = float("inf"), " ".join(f"{type(wrong).__name__}: {wrong}".split())[:200]
            if not difference <= LIMIT:
                off += 1
                row = {"function": name, "size": size, "under": way}
                report.add("Less precise", **row, difference=difference, error=error)
        report.add("Precision", under=way, functions=done, differ=off, limit=LIMIT)
        report.judge(f"functions that differ under {way}", "0", off, off == 0, "Checks")


@contextlib.contextmanager
def under(way: str, device: str) -> Iterator[None]:
    if way == "autocast":
        with torch.autocast(device, torch.bfloat16):
            yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
