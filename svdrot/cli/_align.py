"""`svdrot align`: read, align, judge, tell, write."""

import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from svdrot.cli import _info
from svdrot.io.faces import has_faces
from svdrot.io.files import replacing
from svdrot.io.points import read_points, write_points
from svdrot.io.transforms import read_transform
from svdrot.registration.clouds.global_registration import register
from svdrot.registration.clouds.icp import evaluate
from svdrot.registration.clouds.verdict import Verdict
from svdrot.representations import matrix_to_axis_angle
from svdrot.transform import Transform

RESULT, ALIGNED, PICTURE = "result.json", "aligned.ply", "picture.png"
CODES = {"aligned": 0, "doubtful": 1, "free": 3, "ambiguous": 4}  # 2 is for bad usage
SAMPLES = 20_000  # of a mesh with faces, unless another number is given


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    source: Path
    target: Path
    method: str
    voxel: float | None
    scale: bool
    motion: str
    axis: tuple[float, ...] | None
    init: Path | None
    no_global: bool
    output: Path | None
    seed: int
    source_samples: int | None
    target_samples: int | None
    drop_nan: bool

    @property
    def folder(self) -> Path:
        return self.output or self.source.parent / f"{_label(self.source)}_to_{_label(self.target)}"

    @property
    def clouds(self) -> tuple[tuple[Path, int | None], ...]:
        return (self.source, self.source_samples), (self.target, self.target_samples)


def _label(path: Path) -> str:
    """The name of a file without its suffix, with that of the array in it."""
    name, _, array = path.name.partition(".npz:")
    return f"{name}-{array}" if array else path.stem


@dataclass(frozen=True)
class Result:
    """What was found, and what is to be said of it."""

    transform: Transform
    voxel: float
    fitness: float
    inlier_rmse: float
    verdict: Verdict


class Stages:
    """Seconds that each part took, and on a terminal the name of the one at work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._live = sys.stderr.isatty()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.show(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.show("")

    def show(self, text: str) -> None:
        """In place of what was shown before."""
        if self._live:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


class Refused(Exception):
    """A file, or a setting, with which nothing can be done."""


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        raise Refused(" ".join(str(error).split())) from error


class Told(logging.Handler):
    """Show what the library says meanwhile: that it compiles, which takes seconds the first time."""

    def __init__(self, stages: Stages) -> None:
        super().__init__(logging.INFO)
        self._stages, self._log = stages, logging.getLogger("svdrot")

    def emit(self, record: logging.LogRecord) -> None:
        self._stages.show(record.getMessage())

    def __enter__(self) -> None:
        self._level = self._log.level
        self._log.setLevel(logging.INFO)
        self._log.addHandler(self)

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self)
        self._log.setLevel(self._level)


def run(settings: Settings) -> int:
    stages = Stages()
    try:
        with Told(stages):
            return _run(settings, stages)
    except Refused as error:
        stages.show("")
        print(f"svdrot align: {error}", file=sys.stderr)
        return 2


def _run(settings: Settings, stages: Stages) -> int:
    with stages("reading"), _refusing():
        source, target = (_read(settings, path, samples) for path, samples in settings.clouds)
        init = _read_init(settings.init, settings.scale)
        _open_folder(settings)
    result = _aligned(source, target, init, settings, stages)
    with stages("writing"), _refusing():
        notes = _write(settings, source, target, result)
    record = _record(settings, source, target, result, stages.seconds)
    with _refusing(), replacing(settings.folder / RESULT) as new:
        new.write_text(json.dumps(record, indent=1, default=str) + "\n")
    print(_told(result, stages.seconds))
    print(f"results      {settings.folder}: {', '.join([RESULT, ALIGNED, *([] if notes else [PICTURE])])}")
    for note in notes:
        print(f"svdrot align: {note}", file=sys.stderr)
    return CODES[result.verdict.answer]


def _read(settings: Settings, path: Path, samples: int | None) -> Tensor:
    """Read points: of a mesh those of its surface, or its vertices if these are asked for."""
    drop_nan, seed = settings.drop_nan, settings.seed
    points = read_points(path, samples=samples or None, drop_nan=drop_nan, seed=seed)
    if samples is not None or not has_faces(path):
        return points
    return read_points(path, samples=max(SAMPLES, len(points)), drop_nan=drop_nan, seed=seed)


def _read_init(path: Path | None, scaled: bool) -> Transform | None:
    """A transform, rigid unless a scale is wanted. One that is 1 up to the decimals of a text becomes 1."""
    if path is None:
        return None
    init = read_transform(path)
    if scaled:
        return init
    if abs(init.scale.item() - 1) > 1e-3:
        size = f"{init.scale.item():.6g}"
        raise ValueError(f"{path}: has the scale {size}; only with --scale others than rigid ones are found.")
    return Transform(init.rotation, init.translation, torch.ones_like(init.scale))


def _open_folder(settings: Settings) -> None:
    """Make it, and see that nothing of it is among the inputs."""
    folder = settings.folder
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder for the results: name another by --output.")
    inputs = {path.resolve() for path in (settings.source, settings.target, settings.init) if path}
    for name in (RESULT, ALIGNED, PICTURE):
        if (folder / name).resolve() in inputs:
            raise ValueError(f"{folder / name} is an input, and would be replaced: name another --output.")
    folder.mkdir(parents=True, exist_ok=True)


def _aligned(
    source: Tensor, target: Tensor, init: Transform | None, settings: Settings, stages: Stages
) -> Result:
    """From any position, unless the start is known or nothing else is wanted."""
    if settings.no_global and init is None:
        init = Transform.identity(dtype=torch.float64)
    with stages("aligning"), _refusing():
        options = {"voxel": settings.voxel, "refine": settings.method, "scale": settings.scale}
        if settings.axis is not None:
            options["axis"] = torch.tensor(settings.axis, dtype=torch.float64)
        found = register(source, target, init=init, motion=settings.motion, **options)
    assert found.verdict is not None
    parts = {stage.name: stage.seconds for stage in found.stages}
    stages.seconds["aligning"] -= sum(parts.values())  # what is left is the voxel's
    stages.seconds |= parts
    fitness, rmse = 0.0, torch.tensor(math.nan)
    if found.voxel > 0:
        fitness, rmse, _ = evaluate(source, target, found.transform, found.voxel)
    return Result(found.transform, found.voxel, float(fitness), rmse.item(), found.verdict)


def _write(settings: Settings, source: Tensor, target: Tensor, result: Result) -> list[str]:
    """The moved cloud and the picture; returns what could not be done."""
    write_points(settings.folder / ALIGNED, result.transform.apply(source))
    try:
        from svdrot.cli import picture
    except ImportError as error:
        return [f'no picture, which needs matplotlib: pip install "svdrot[registration]" ({error})']
    title = f"{_label(settings.source)} to {_label(settings.target)}: {_verdict(result)}"
    figure = picture.draw(source, target, result.transform, title)
    with replacing(settings.folder / PICTURE) as new:
        figure.savefig(new)
    return []


def _record(
    settings: Settings, source: Tensor, target: Tensor, result: Result, seconds: dict[str, float]
) -> dict[str, Any]:
    """What `result.json` holds: `read_transform` reads it, and so does `--init`."""
    angle, axis = _angle_and_axis(result.transform)
    return {
        "transform": result.transform.matrix.tolist(),
        "rotation_degrees": angle,
        "rotation_axis": axis,
        "translation": result.transform.translation.tolist(),
        "source_scale": result.transform.scale.item(),
        "verdict": result.verdict.answer,
        "reasons": result.verdict.reasons,
        **_judged(result.verdict),
        "fitness": _finite(result.fitness),
        "inlier_rmse": _finite(result.inlier_rmse),
        "voxel": result.voxel,
        "source": {"file": str(settings.source.absolute()), "points": len(source)},
        "target": {"file": str(settings.target.absolute()), "points": len(target)},
        "settings": asdict(settings),
        "seconds": seconds,
        "versions": _info.versions(),
    }


def _judged(told: Verdict) -> dict[str, Any]:
    """What the verdict holds; twists are of the frame of the target, about the center."""
    known = bool(told.covariance.isfinite().all())
    return {
        "free_motions": [{"rotation": t[:3].tolist(), "translation": t[3:].tolist()} for t in told.free],
        "rivals": told.rivals.matrix.tolist(),
        "center": told.center.tolist() if known else None,
        "covariance": told.covariance.tolist() if known else None,
        "misfit": _finite(told.misfit),
        "cover": told.cover,
        "scale": told.scale,
        "scale_error": _finite(told.scale_error),
    }


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _angle_and_axis(transform: Transform) -> tuple[float, list[float]]:
    """Degrees, and a unit vector, or zero for no rotation."""
    vector = matrix_to_axis_angle(transform.rotation)
    angle = vector.norm()
    return math.degrees(angle), (vector / angle if angle > 0 else vector).tolist()


def _verdict(result: Result) -> str:
    return "no reliable alignment" if result.verdict.answer == "doubtful" else result.verdict.answer


def _told(result: Result, seconds: dict[str, float]) -> str:
    angle, axis = _angle_and_axis(result.transform)
    matrix = [" ".join(f"{x:15.9g}" for x in row) for row in result.transform.matrix.tolist()]
    translation = result.transform.translation
    size = result.transform.scale.item()
    times = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
    return "\n".join(
        [
            "transform of the source:",
            *matrix,
            f"rotation     {angle:.6g} degrees about {_vector(axis)}",
            f"translation  {_vector(translation.tolist())}, length {translation.norm().item():.6g}",
            *([] if size == 1 else [f"scale        {size:.6g}, by which the source is multiplied first"]),
            f"fitness      {result.fitness:.4f} of the source within {result.voxel:.4g} of the target",
            f"inlier RMSE  {result.inlier_rmse:.6g}",
            *_accuracy(result),
            f"verdict      {'; '.join([_verdict(result), *result.verdict.reasons])}",
            f"seconds      {times}, in all {sum(seconds.values()):.2f}",
        ]
    )


def _accuracy(result: Result) -> list[str]:
    """The standard deviations of the pose, in the direction in which they are largest."""
    covariance = result.verdict.covariance
    if result.verdict.answer == "doubtful" or not covariance.isfinite().all():
        return []
    blocks = covariance[:3, :3], covariance[3:, 3:]
    turn, shift = (torch.linalg.eigvalsh(block)[-1].clamp(min=0).sqrt().item() for block in blocks)
    center = _vector(result.verdict.center.tolist())
    return [f"uncertainty  {math.degrees(turn):.2g} degrees, and {shift:.2g} at {center}, one sigma"]


def _vector(values: list[float]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"
