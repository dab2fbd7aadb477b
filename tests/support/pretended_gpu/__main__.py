"""What every public function would do on a GPU, by its typical call: launches, waits and copies.

python -m tests.support.pretended_gpu                      a table
python -m tests.support.pretended_gpu svdrot.polar.polar   each event, with its line
python -m tests.support.pretended_gpu --write              tests/svdrot/gpu_counts.csv anew
python -m tests.support.pretended_gpu --json [--device cuda:1]    what the test reads
"""

import argparse
import collections
import csv
import json
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from typical import Typical, found, of_any_size  # noqa: E402

from . import Event, back, on, record  # noqa: E402

TABLE = Path(__file__).resolve().parents[2] / "svdrot" / "gpu_counts.csv"
SIZES = (3, 4)
# Not counted: what has weights, which are on the CPU; and what takes a minute, interpreted: a search.
LEFT_OUT = ("Head.forward", "svdrot.distributions.IsotropicGaussian.fit")


def subjects() -> list[tuple[str, int]]:
    """Functions and the size of what they are given; points and matrices of any size also of one without a
    formula."""
    names = [name for name in found() if not name.endswith(LEFT_OUT)]
    return [(name, size) for name in names for size in SIZES[: 1 + (name in of_any_size())]]


def counted(name: str, size: int, device: str) -> dict[str, Any]:
    """Counts forward and backward; or what it raised."""
    plain, there = (
        Typical(name, dtype=torch.float32, size=size),
        Typical(name, dtype=torch.float32, size=size),
    )
    wanted = [t.clone().requires_grad_(t.is_floating_point()) for t in plain.tensors]
    given = [on(t, device) for t in wanted]
    torch.manual_seed(0)
    expected = plain(*wanted)
    torch.manual_seed(0)
    try:
        with record() as events:
            results = there(*given)
            forward = [*events]
            events.clear()
            roots = [r for r in results if r.requires_grad]
            leaves = [t for t in given if t.requires_grad]
            if roots:
                cotangents = [on(torch.ones(r.shape, dtype=r.dtype), device) for r in roots]
                torch.autograd.grad(roots, leaves, cotangents, allow_unused=True)
            backward = [*events]
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error)[:300]}", "events": [*events]}
    return {
        "forward": counts(forward),
        "backward": counts(backward) if roots else None,
        "error": compared(expected, results),
        "elsewhere": sum(r.device != torch.device(device) for r in results) if given else 0,
        "events": [*forward, *backward],
    }


def counts(events: list[Event]) -> tuple[int, int, int]:
    kinds = collections.Counter(event.kind for event in events)
    return kinds["launch"] + kinds["kernel"], kinds["wait"] + kinds["down"], kinds["up"] + kinds["down"]


def compared(expected: Any, results: Any) -> float:
    """The largest difference, relative to the largest number of each result; infinite for other shapes."""
    worst = 0.0
    for x, y in zip(expected, results, strict=True):
        x, y = back(x).double(), back(y).double()
        if x.shape != y.shape or not torch.equal(x.isnan(), y.isnan()):
            return float("inf")
        size = x.abs().nan_to_num(0, 0, 0).max().item() if x.numel() else 0
        off = torch.where(x == y, 0, (x - y).abs()).nan_to_num(0, float("inf"))
        worst = max(worst, off.max().item() / (size or 1)) if x.numel() else worst
    return worst


def cell(found: tuple[int, int, int] | None) -> str:
    return "-" if found is None else " ".join(map(str, found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)  # what other threads do is not seen
    np.seterr(all="ignore")
    warnings.simplefilter("ignore")
    rows = {}
    for name, size in subjects():
        if options.names and name not in options.names:
            continue
        row = counted(name, size, options.device)
        events = row.pop("events")
        rows[f"{name} {size}"] = row
        if not options.json:
            shown = [cell(row["forward"]), cell(row["backward"]), row["error"]] if "forward" in row else row
            print(f"{name} {size}", *(shown if isinstance(shown, list) else [shown["error"]]), sep=" | ")
        if options.names:
            for event, count in collections.Counter(events).items():
                print(f"    {count:4} {event.kind:8} {event.what:24} {event.where}")
    if options.json:
        print(json.dumps(rows))
    if options.write:
        with TABLE.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("function", "size", "forward", "backward"))
            for key, row in rows.items():
                if "forward" in row:
                    writer.writerow((*key.rsplit(" ", 1), cell(row["forward"]), cell(row["backward"])))


main()
