"""The command `svdrot`: `align` two clouds, `convention` of rotations, `info` on what is installed.

What it does is imported by the command that does it: help and bad usage are answered without torch.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from svdrot import __version__

INTERRUPTED = 130  # as shells tell of Ctrl-C

ALIGN = """\
Align SOURCE with TARGET: globally, from features, wherever they lie, and then locally, by ICP.

Clouds are ply, pcd, obj, off, stl, npy, npz (FILE.npz:NAME names an array), xyz, pts, txt, csv or KITTI's
bin, in any unit, but both in the same unless --scale is given. Prints the transform, which takes points of
SOURCE to TARGET, how exact it is and whether to trust it, and writes result.json, aligned.ply and
picture.png."""

EXIT = """\
example:
  svdrot align scan.ply model.ply --output aligned

Ends with 0 if they are aligned, 1 if no reliable alignment was found, 2 for bad usage or a file that cannot
be read or written, 3 if some motions change nothing (a plane slides on a plane), along which nothing is
moved, and 4 if other poses fit as well (of things that are symmetric, or repeat themselves)."""

CONVENTION = """\
Name the convention by which A and B differ, two arrays that should be the same rotations, row by row.

Files are npy, npz with one array, or txt and csv with a rotation to a line: matrices (N, 3, 3), (N, 4, 4), or
as 9, 12 or 16 numbers, quaternions, 6D, rotation vectors, Euler angles. Prints how both are to be read, what
is between them, and a line of Python that makes b of a."""

CONVENTION_EXIT = """\
example:
  svdrot convention estimated.npy truth.npy

Ends with 0 if one convention is found, 1 if none is, 2 for bad usage or a file that cannot be read, and 4 if
several agree with these rows, which are then listed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. Bad usage ends the program by SystemExit, as argparse does."""
    parser = _parser()
    settings = parser.parse_args(arguments)
    try:
        return settings.run(settings)
    except KeyboardInterrupt:
        print("\nsvdrot: interrupted.", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="svdrot",
        description="Rotations and alignments.",
        epilog="example:\n  svdrot align scan.ply model.ply",
        formatter_class=form,
    )
    parser.add_argument("--version", action="version", version=f"svdrot {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    align = commands.add_parser(
        "align", help="align two point clouds", description=ALIGN, epilog=EXIT, formatter_class=form
    )
    align.set_defaults(run=_run_align)
    align.add_argument("source", type=Path, metavar="SOURCE", help="the cloud that is moved")
    align.add_argument("target", type=Path, metavar="TARGET", help="the cloud that stays")
    align.add_argument(
        "--method",
        choices=("point_to_point", "point_to_plane", "symmetric", "generalized"),
        default="point_to_plane",
        help="of the local alignment (default: %(default)s)",
    )
    align.add_argument(
        "--voxel",
        type=_length,
        metavar="V",
        help="finest detail, in the unit of TARGET (default: by their size)",
    )
    align.add_argument(
        "--scale",
        action="store_true",
        help="find the size of SOURCE, too: the clouds are in different units, or one has none",
    )
    align.add_argument(
        "--motion",
        choices=("free", "yaw", "planar"),
        default="free",
        help="yaw: both clouds have the same up; planar: and the same floor (default: %(default)s)",
    )
    align.add_argument(
        "--axis",
        type=_axis,
        metavar="X,Y,Z",
        help="up, of --motion yaw and planar, with --axis=-1,0,0 for negative ones (default: 0,0,1)",
    )
    align.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="transform to start from: txt, npy or json with a 4x4 matrix",
    )
    align.add_argument(
        "--no-global", action="store_true", help="only ICP, from where the clouds lie or from --init"
    )
    align.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: SOURCE_to_TARGET beside SOURCE)",
    )
    align.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="of the points that are drawn on meshes (default: 0)",
    )
    for name in ("source", "target"):
        align.add_argument(
            f"--{name}-samples",
            type=int,
            metavar="N",
            help=f"{name.upper()} is a mesh: N points of its surface (default: 20,000), 0 for its vertices",
        )
    align.add_argument("--drop-nan", action="store_true", help="leave out points that are not finite")

    convention = commands.add_parser(
        "convention",
        help="name the convention by which two files of rotations differ",
        description=CONVENTION,
        epilog=CONVENTION_EXIT,
        formatter_class=form,
    )
    convention.set_defaults(run=_run_convention)
    convention.add_argument("a", type=Path, metavar="A", help="rotations in some convention")
    convention.add_argument("b", type=Path, metavar="B", help="the same rotations in another one")

    info = commands.add_parser(
        "info",
        help="versions, devices and which backends work",
        description="Print versions, devices, which backends work, and where compiled kernels are kept.",
        epilog="example:\n  svdrot info",
        formatter_class=form,
    )
    info.set_defaults(run=_run_info)
    info.add_argument(
        "--clear-cache",
        action="store_true",
        help="remove the compiled kernels; they are compiled again when they are used",
    )
    return parser


def _axis(text: str) -> tuple[float, ...]:
    try:
        axis = tuple(float(part) for part in text.split(","))
    except ValueError:
        axis = ()
    if len(axis) != 3 or not 0 < math.hypot(*axis) < math.inf:
        raise argparse.ArgumentTypeError(f"must be three numbers such as 0,0,1, not all 0; got {text}")
    return axis


def _length(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number; got {text!r}")
    return value


def _seed(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**64):
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 2^64 - 1; got {text!r}")
    return int(text)


def _run_align(settings: argparse.Namespace) -> int:
    from svdrot.cli._align import Settings, run

    return run(Settings(**{name: value for name, value in vars(settings).items() if name != "run"}))


def _run_convention(settings: argparse.Namespace) -> int:
    from svdrot.cli import _convention

    return _convention.run(settings.a, settings.b)


def _run_info(settings: argparse.Namespace) -> int:
    from svdrot.cli import _info

    if settings.clear_cache:
        return _info.clear_cache()
    print(_info.report())
    return 0
