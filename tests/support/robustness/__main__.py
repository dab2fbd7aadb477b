"""Random calls of every public function, good ones and bad ones, and the laws that all of them keep.

    python -m tests.support.robustness --calls 100000 --seed 0
    python -m tests.support.robustness --calls 100000 --threads 8
    python -m tests.support.robustness --calls 100000 --fork
    python -m tests.support.robustness --calls 100000 --memory 64
    PYTHONDEVMODE=1 python -m tests.support.robustness --calls 100000
    python -m tests.support.robustness --seed 0 --only 4711

A call is determined by its seed and number alone: `--only` repeats one, and tells what it was. The calls run
in a process of their own, and one that dies is named and begun anew behind the call that it died of.

The functions are those of the public tables, and their arguments are made by the names of their parameters
(`makers.py`); a function whose parameters have no maker stops everything with a sentence that says what to
add.
"""

import argparse
import sys

import torch

from .calls import Campaign
from .laws import findings
from .workers import supervise, work


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--only", type=int, help="repeat one call, and tell about it")
    parser.add_argument("--threads", type=int, default=1, help="calls at a time")
    parser.add_argument(
        "--fork", action="store_true", help="every block of calls in a fork of a warm process"
    )
    parser.add_argument("--memory", type=int, default=0, help="the same, with so many MiB to spare")
    parser.add_argument("--block", type=int, default=500)
    parser.add_argument("--patience", type=float, default=300, help="seconds for a block, or it hangs")
    parser.add_argument("--state", help=argparse.SUPPRESS)
    parser.add_argument("--report", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only is not None:
        tell(options.seed, options.only)
    elif options.state:
        work(options)
    else:
        sys.exit(supervise(options))


def tell(seed: int, number: int) -> None:
    call = Campaign().call(seed, number)
    print(call.subject.name, "with", call.spoiled or "good input")
    for name, value in call.arguments.items():
        print(f"  {name} = {value!r}")
    for finding in findings(call):
        print(finding.law, "|", finding.what)
    print(call())


main()
