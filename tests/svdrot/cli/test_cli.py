"""The command: what it prints and writes, its exit codes, and every way to use it wrongly."""

import importlib.metadata
import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stones import moved, stone

import svdrot
from svdrot import cli
from svdrot._kernels.cpu.compiler import machine_code
from svdrot.io.points import FORMATS, read_points, write_points
from svdrot.io.transforms import read_transform, write_transform
from svdrot.registration import register

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared/data"


def run(*arguments) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "svdrot", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


# Information.


def test_version_is_that_of_the_package():
    assert run("--version").stdout.strip() == f"svdrot {importlib.metadata.version('svdrot')}"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["align", "--help"], ["convention", "--help"], ["info", "--help"]],
    ids=" ".join,
)
def test_help_gives_one_example(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == 0 and not printed.err
    assert printed.out.count("example:\n  svdrot ") == 1


def test_help_tells_of_every_format():
    for suffix in FORMATS:
        assert suffix.removeprefix(".") in re.findall(r"\w+", cli.ALIGN)


def test_info(capsys):
    assert cli.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = {line[:12].strip(): line[12:].strip() for line in lines}
    assert told["torch"] == torch.__version__
    for package in ("svdrot", "numpy", "scipy", "numba"):
        assert told[package] == importlib.metadata.version(package)
    assert told["devices"].startswith("cpu")
    assert re.match(r"\d+ compiled \(.* MiB\), kept in ", told["CPU kernels"])
    assert told["GPU kernels"].startswith("on" if torch.cuda.is_available() else "off")
    assert {"triton", "open3d", "trimesh", "matplotlib", "binary PCD", "pictures"} <= told.keys()


def test_info_says_why_open3d_does_not_load(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    assert cli.main(["info"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("binary PCD")]
    assert "off" in line and "open3d does not load: import of open3d halted" in line


# Bad usage.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["turn"], "invalid choice: 'turn'"),
        (["align"], "SOURCE, TARGET"),
        (["align", "a.ply"], "TARGET"),
        (["align", "a.ply", "b.ply", "--method", "magic"], "invalid choice: 'magic'"),
        (["align", "a.ply", "b.ply", "--voxel", "0"], "must be a positive number; got '0'"),
        (["align", "a.ply", "b.ply", "--voxel", "nan"], "must be a positive number; got 'nan'"),
        (["align", "a.ply", "b.ply", "--seed", "x"], "must be an integer from 0 to 2^64 - 1; got 'x'"),
        (["align", "a.ply", "b.ply", "--seed", str(2**64)], "must be an integer from 0 to 2^64 - 1"),
        (["align", "a.ply", "b.ply", "--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_bad_usage_ends_with_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def clouds(tmp_path):
    write_points(tmp_path / "source.ply", stone())
    write_points(tmp_path / "target.ply", moved().apply(stone(seed=1)))
    return tmp_path / "source.ply", tmp_path / "target.ply"


def refused(capsys, *arguments) -> str:
    """The one line that the command ends with, with 2."""
    assert cli.main(["align", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    (line,) = printed.err.splitlines()
    assert line.startswith("svdrot align: ")
    return line


def broken_files(folder, good):
    data = good.read_bytes()
    contents = {
        "missing.ply": None,
        "empty.ply": b"",
        "cut.ply": data[: len(data) // 2],
        "text.ply": b"this is not a cloud",
        "letters.xyz": b"1 2 3\n4 five 6\n",
        "columns.csv": b"1,2\n3,4\n",
        "nan.xyz": b"1 2 3\nnan 0 0\n",
        "none.xyz": b"# nothing\n",
        "cloud.las": b"LASF",
        "cut.npy": b"\x93NUMPY\x01\x00v\x00{'descr'",
    }
    for name, content in contents.items():
        if content is not None:
            (folder / name).write_bytes(content)
        yield folder / name
    (folder / "folder.ply").mkdir()
    yield folder / "folder.ply"


def test_files_that_cannot_be_read_are_named(clouds, tmp_path, capsys):
    for file in broken_files(tmp_path, clouds[0]):
        assert str(file) in refused(capsys, file, clouds[1])
        assert str(file) in refused(capsys, clouds[0], file)
    assert not [*tmp_path.glob("*_to_*")]


def test_a_broken_start_is_named(clouds, tmp_path, capsys):
    for name, text in {
        "missing.txt": None,
        "text.txt": "no matrix",
        "reflection.txt": "-1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n",
        "scaled.txt": "2 0 0 0\n0 2 0 0\n0 0 2 0\n0 0 0 1\n",
        "cut.json": '{"transform": [[1, 0',
    }.items():
        if text:
            (tmp_path / name).write_text(text)
        assert str(tmp_path / name) in refused(capsys, *clouds, "--init", tmp_path / name)


def test_no_input_is_replaced(clouds, tmp_path, capsys):
    source, target = clouds
    (tmp_path / "out").mkdir()
    for name in ("aligned.ply", "picture.png", "result.json"):
        mine = tmp_path / "out" / name
        if name == "aligned.ply":
            mine.write_bytes(source.read_bytes())
            line = refused(capsys, mine, target, "--output", tmp_path / "out")
            assert str(mine) in line and "--output" in line
            assert mine.read_bytes() == source.read_bytes()
    write_transform(tmp_path / "out/result.json", moved())
    before = (tmp_path / "out/result.json").read_bytes()
    refused(capsys, *clouds, "--init", tmp_path / "out/result.json", "--output", tmp_path / "out")
    assert (tmp_path / "out/result.json").read_bytes() == before


def test_a_file_in_the_place_of_the_folder(clouds, tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    assert "taken" in refused(capsys, *clouds, "--output", tmp_path / "taken")
    assert "taken" in refused(capsys, *clouds, "--output", tmp_path / "taken/below")
    assert (tmp_path / "taken").read_text() == "mine"


def test_surfaces_of_clouds(clouds, capsys):
    assert "source.ply" in refused(capsys, *clouds, "--source-samples", "100")
    assert "`samples`" in refused(capsys, *clouds, "--target-samples", "-1")


# Alignments.

# A fifth of the distance of neighboring points.
DEGREES, LENGTH = 1.0, 0.01


@pytest.fixture(autouse=True)
def blank_pictures(monkeypatch):
    """Those that processes of their own draw are looked at; the others would take a second each."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    monkeypatch.setattr("svdrot.cli.picture.draw", lambda *_: figure((1, 1)))


def names(folder) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def assert_found(folder, truth, degrees=DEGREES):
    found = read_transform(folder / "result.json")
    assert torch.rad2deg(svdrot.geodesic_distance(found.rotation, truth.rotation)) < degrees
    assert (found.translation - truth.translation).norm() < LENGTH
    return found


def test_clouds_far_apart_are_aligned(clouds, tmp_path, capsys):
    assert cli.main(["align", *map(str, clouds)]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    folder = tmp_path / "source_to_target"
    found = assert_found(folder, moved())
    assert names(folder) == ["aligned.ply", "picture.png", "result.json"]
    torch.testing.assert_close(
        read_points(folder / "aligned.ply"), found.apply(stone()), rtol=1e-12, atol=1e-12
    )
    assert (folder / "picture.png").read_bytes()[:4] == b"\x89PNG"

    result = json.loads((folder / "result.json").read_text())
    assert result["verdict"] == "aligned" and not result["reasons"] and not result["free_motions"]
    assert np.linalg.eigvalsh(result["covariance"]).min() > 0 and not result["rivals"]
    assert result["misfit"] < 1.5 and result["cover"] > 0.8 and abs(result["scale"] - 1) < 0.01
    assert result["fitness"] > 0.9 and 0 < result["inlier_rmse"] < result["voxel"]
    assert result["rotation_degrees"] == pytest.approx(np.degrees(2.0), abs=DEGREES)
    assert result["source"] == {"file": str(clouds[0]), "points": len(stone())}
    assert result["settings"]["method"] == "point_to_plane" and result["settings"]["seed"] == 0
    assert result["versions"]["torch"] == torch.__version__
    assert {"reading", "aligning", "features", "robust", "local", "verdict", "writing"} == result[
        "seconds"
    ].keys()

    lines = printed.out.splitlines()
    matrix = torch.tensor([[float(word) for word in line.split()] for line in lines[1:5]]).double()
    torch.testing.assert_close(matrix, found.matrix, rtol=1e-6, atol=1e-8)
    for wanted in (
        "rotation ",
        "translation ",
        "fitness ",
        "inlier RMSE ",
        "uncertainty ",
        "verdict      aligned",
        "seconds ",
    ):
        assert any(line.startswith(wanted) for line in lines), printed.out


def test_units_do_not_matter(tmp_path):
    """The same in millimeters, far from the origin, but for lengths."""
    scale, offset = 1000.0, torch.tensor([4e6, 5e5, 0.0], dtype=torch.float64)
    write_points(tmp_path / "a.npy", scale * stone() + offset)
    write_points(tmp_path / "b.npy", scale * moved(angle=0.1, length=0.05).apply(stone(seed=1)) + offset)
    arguments = ["align", f"{tmp_path}/a.npy", f"{tmp_path}/b.npy", "--no-global", "--output", str(tmp_path)]
    assert cli.main(arguments) == 0
    found, truth = read_transform(tmp_path / "result.json"), moved(angle=0.1, length=0.05)
    assert torch.rad2deg(svdrot.geodesic_distance(found.rotation, truth.rotation)) < DEGREES
    # The translation acts at the origin, from afar: compare where the points go.
    error = found.apply(scale * stone() + offset) - (scale * truth.apply(stone()) + offset)
    assert error.norm(dim=1).max() < 2 * LENGTH * scale


@pytest.mark.parametrize("method", ["point_to_point", "point_to_plane", "symmetric", "generalized"])
def test_every_method_from_a_start(method, clouds, tmp_path):
    near = moved() @ moved(seed=7, angle=0.1, length=0.02)
    write_transform(tmp_path / "start.txt", near)
    arguments = [*map(str, clouds), "--init", f"{tmp_path}/start.txt", "--method", method]
    assert cli.main(["align", *arguments, "--output", f"{tmp_path}/out"]) == 0
    # Pairs of different points of a surface hold on to where they are.
    assert_found(tmp_path / "out", moved(), 3 * DEGREES if method == "point_to_point" else DEGREES)
    assert "global" not in json.loads((tmp_path / "out/result.json").read_text())["seconds"]


def test_a_result_is_a_start(clouds, tmp_path):
    write_transform(tmp_path / "start.json", moved())
    for start, out in (("start.json", "first"), ("first/result.json", "second")):
        arguments = [*map(str, clouds), "--init", f"{tmp_path}/{start}", "--output", f"{tmp_path}/{out}"]
        assert cli.main(["align", *arguments]) == 0
    assert_found(tmp_path / "second", moved())


def test_clouds_of_nothing_in_common_end_with_1(tmp_path, capsys):
    """And what was found is written all the same."""
    write_points(tmp_path / "a.ply", stone())
    rest = torch.rand(3000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    write_points(tmp_path / "b.ply", 5 * rest)
    assert cli.main(["align", f"{tmp_path}/a.ply", f"{tmp_path}/b.ply", "--voxel", "0.1"]) == 1
    assert "no reliable alignment; " in capsys.readouterr().out
    result = json.loads((tmp_path / "a_to_b/result.json").read_text())
    assert result["verdict"] == "doubtful" and result["reasons"]
    assert names(tmp_path / "a_to_b") == ["aligned.ply", "picture.png", "result.json"]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


UNDETERMINED = {
    "one point": (1, lambda seed: torch.zeros(50, 3)),
    "two points": (1, lambda seed: torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])),
    "line": (1, lambda seed: random(500, 1, seed=seed) * torch.tensor([1.0, 2.0, 3.0])),
    "plane": (3, lambda seed: torch.cat((random(800, 2, seed=seed), torch.zeros(800, 1)), 1)),
    "sphere": (3, lambda seed: torch.nn.functional.normalize(random(1500, 3, seed=seed) - 0.5, dim=1)),
    "cube": (4, lambda seed: cube(seed)),
}


def cube(seed: int) -> torch.Tensor:
    points = random(3000, 3, seed=seed) - 0.5
    face = torch.arange(3000) % 6
    return points.scatter_(1, (face % 3)[:, None], (0.5 * (-1.0) ** (face // 3))[:, None])


@pytest.mark.parametrize("what", UNDETERMINED)
def test_what_determines_no_transform_ends_with_the_code_that_says_why(what, tmp_path, capsys):
    code, make = UNDETERMINED[what]
    away = torch.tensor([0.01, 0.02, 0.0])
    write_points(tmp_path / "a.npy", make(0))
    write_points(tmp_path / "b.npy", make(1) + away)
    arguments = [f"{tmp_path}/a.npy", f"{tmp_path}/b.npy", "--no-global"]
    assert cli.main(["align", *arguments]) == code
    told = {1: "no reliable alignment; ", 3: "free; it ", 4: "ambiguous; "}[code]
    assert f"verdict      {told}" in capsys.readouterr().out
    result = json.loads((tmp_path / "a_to_b/result.json").read_text())
    assert np.isfinite(result["transform"]).all() and result["reasons"]
    assert len(result["free_motions"]) == (3 if code == 3 else 0)
    assert len(result["rivals"]) == (8 if code == 4 else 0)  # of 23
    if what == "plane":  # it need not slide to lie on the other, and does not
        assert np.abs(np.array(result["transform"])[:3, 3]).max() < 0.003


def test_sizes_that_differ_are_named(tmp_path, capsys):
    write_points(tmp_path / "a.npy", stone())
    write_points(tmp_path / "b.npy", 1.05 * moved(angle=0.02, length=0.01).apply(stone(seed=1)))
    assert cli.main(["align", f"{tmp_path}/a.npy", f"{tmp_path}/b.npy", "--no-global"]) == 1
    assert "the sizes differ: the source would fit best multiplied by 1.0" in capsys.readouterr().out
    assert json.loads((tmp_path / "a_to_b/result.json").read_text())["scale"] == pytest.approx(
        1.05, abs=0.005
    )


def test_sizes_that_differ_are_found_if_they_may(tmp_path, capsys):
    """And what was found is a start."""
    truth = moved(angle=0.6, length=0.3)
    truth = svdrot.Transform(truth.rotation, truth.translation, 25.4 * truth.scale)
    write_points(tmp_path / "a.npy", stone())
    write_points(tmp_path / "b.npy", truth.apply(stone(seed=1)))
    arguments = ["align", f"{tmp_path}/a.npy", f"{tmp_path}/b.npy", "--scale"]
    for more in ([], ["--init", f"{tmp_path}/a_to_b/result.json", "--output", f"{tmp_path}/again"]):
        assert cli.main([*arguments, *more]) == 0
        assert "by which the source is multiplied first" in capsys.readouterr().out
    for folder in ("a_to_b", "again"):
        found = read_transform(tmp_path / folder / "result.json")
        assert found.scale.item() == pytest.approx(25.4, rel=0.005)
        assert torch.rad2deg(svdrot.geodesic_distance(found.rotation, truth.rotation)) < DEGREES
    result = json.loads((tmp_path / "again/result.json").read_text())
    assert result["source_scale"] == pytest.approx(found.scale.item(), rel=1e-6)
    assert "only with --scale" in refused(
        capsys, *(tmp_path / name for name in ("a.npy", "b.npy")), "--init", tmp_path / "again/result.json"
    )


FACES = {
    "a.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    "a.off": "OFF\n# of three\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
    "a.ply": "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    "element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
}
NO_FACES = {
    "b.obj": "v 0 0 0\nv 1 0 0\n# f 1 2 3\n",
    "b.off": "OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n",
    "b.ply": FACES["a.ply"].replace("element face 1", "element face 0").removesuffix("3 0 1 2\n"),
    "b.xyz": "0 0 0\n1 0 0\n",
}


def test_meshes_are_sampled_unless_their_vertices_are_asked_for(tmp_path):
    pytest.importorskip("trimesh")
    for name, text in (FACES | NO_FACES).items():
        (tmp_path / name).write_text(text)
    for name in FACES:
        arguments = [str(tmp_path / name), str(tmp_path / "b.xyz"), "--no-global"]
        for more, points in (([], 20_000), (["--source-samples", "0"], 3), (["--source-samples", "50"], 50)):
            assert cli.main(["align", *arguments, *more, "--output", f"{tmp_path}/out"]) == 1
            assert json.loads((tmp_path / "out/result.json").read_text())["source"]["points"] == points
    for name in NO_FACES:
        arguments = [str(tmp_path / name), str(tmp_path / "b.xyz"), "--no-global"]
        assert cli.main(["align", *arguments, "--output", f"{tmp_path}/out"]) == 1
        assert json.loads((tmp_path / "out/result.json").read_text())["source"]["points"] < 4


def test_a_surface_and_its_scan(tmp_path):
    pytest.importorskip("trimesh")
    mesh = DATA / "meshes/spot_low_resolution.obj"
    if not mesh.is_file():
        pytest.skip(f"the mesh {mesh} is not there")
    scan = read_points(mesh, samples=3000, seed=5)
    truth = moved(angle=0.2, length=0.05)
    write_points(tmp_path / "scan.xyz", torch.cat((truth.inverse().apply(scan), torch.zeros(0, 3))))
    (tmp_path / "scan.xyz").write_text((tmp_path / "scan.xyz").read_text() + "nan nan nan\n")
    arguments = [f"{tmp_path}/scan.xyz", str(mesh), "--target-samples", "20000", "--no-global"]
    assert cli.main(["align", *arguments]) == 2
    assert cli.main(["align", *arguments, "--drop-nan"]) == 0
    assert_found(tmp_path / "scan_to_spot_low_resolution", truth)


def test_equal_clouds_give_equal_results(clouds, tmp_path):
    """Whatever the seed: it is for points that are drawn on meshes."""
    for out in ("one", "two"):
        arguments = ["--seed", str(len(out)), "--voxel", "0.08", "--output", f"{tmp_path}/{out}"]
        assert cli.main(["align", *map(str, clouds), *arguments]) == 0
    one, two = (json.loads((tmp_path / out / "result.json").read_text()) for out in ("one", "two"))
    assert one["transform"] == two["transform"] and one["fitness"] == two["fitness"]
    assert one["voxel"] == 0.08
    assert (tmp_path / "one/aligned.ply").read_bytes() == (tmp_path / "two/aligned.ply").read_bytes()


def test_the_seed_is_of_the_points_drawn_on_meshes(tmp_path):
    pytest.importorskip("trimesh")
    (tmp_path / "a.obj").write_text(FACES["a.obj"])
    (tmp_path / "b.xyz").write_text("0 0 0\n1 0 0\n")
    drawn = []
    for number, seed in enumerate((1, 1, 2)):
        arguments = ["--source-samples", "50", "--seed", str(seed), "--output", f"{tmp_path}/{number}"]
        cli.main(["align", f"{tmp_path}/a.obj", f"{tmp_path}/b.xyz", "--no-global", *arguments])
        drawn.append((tmp_path / str(number) / "aligned.ply").read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]


def test_open3d_is_not_needed(clouds, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    assert cli.main(["align", *map(str, clouds)]) == 0
    assert_found(tmp_path / "source_to_target", moved())


def test_without_matplotlib_only_the_picture_is_missing(clouds, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "svdrot.cli.picture", None)
    monkeypatch.delattr(cli, "picture")
    write_transform(tmp_path / "start.txt", moved())
    assert cli.main(["align", *map(str, clouds), "--init", f"{tmp_path}/start.txt"]) == 0
    printed = capsys.readouterr()
    assert 'no picture, which needs matplotlib: pip install "svdrot[registration]"' in printed.err
    assert printed.out.endswith("result.json, aligned.ply\n")
    assert names(tmp_path / "source_to_target") == ["aligned.ply", "result.json"]


def test_progress_is_for_terminals(clouds, tmp_path, capsys, monkeypatch):
    write_transform(tmp_path / "start.txt", moved())
    arguments = ["align", *map(str, clouds), "--init", f"{tmp_path}/start.txt"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().err
    assert all(name in shown for name in ("reading", "aligning", "writing"))
    assert shown.endswith("\r\x1b[K")


def test_kernels_that_are_compiled_are_told_of(clouds, tmp_path, capsys, monkeypatch):
    aligned = register

    def slow(*arguments, **options):
        machine_code._compile("count_cells", torch.float64)
        return aligned(*arguments, **options)

    monkeypatch.setattr("svdrot.cli._align.register", slow)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(["align", *map(str, clouds), "--output", f"{tmp_path}/out"]) == 0
    assert "compiling count_cells, once on this machine" in capsys.readouterr().err
    assert not logging.getLogger("svdrot").handlers


@pytest.fixture
def interruptible():
    """As in a terminal; what runs in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_no_half_files(clouds, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("svdrot.cli._align.register", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    write_transform(tmp_path / "start.txt", moved())
    arguments = ["--init", f"{tmp_path}/start.txt", "--output", f"{tmp_path}/out"]
    assert cli.main(["align", *map(str, clouds), *arguments]) == cli.INTERRUPTED
    assert capsys.readouterr().err.endswith("svdrot: interrupted.\n")
    assert not [*(tmp_path / "out").iterdir()]


def test_a_folder_that_cannot_be_written(clouds, tmp_path, capsys, monkeypatch):
    def denied(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", denied)
    assert f"{tmp_path}/out" in refused(capsys, *clouds, "--output", tmp_path / "out")


# Real scans.

TRUTHS = {
    "indoor_geotransformer_demo": ("src.npy", "ref.npy", "gt.npy", 1.5, 0.10),
    "lidar_small_gicp": ("source.ply", "target.ply", "T_target_source.txt", 0.3, 0.04),
}


@pytest.mark.parametrize("pair", TRUTHS)
def test_real_scans(pair, tmp_path):
    source, target, truth, degrees, length = TRUTHS[pair]
    folder = DATA / "registration" / pair
    if not folder.is_dir():
        pytest.skip(f"the pair {folder} is not there")
    done = run("align", folder / source, folder / target, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr and "verdict      aligned" in done.stdout
    assert (tmp_path / "picture.png").stat().st_size > 100_000
    found, true = read_transform(tmp_path / "result.json"), read_transform(folder / truth)
    assert torch.rad2deg(svdrot.geodesic_distance(found.rotation, true.rotation)) < degrees
    assert (found.translation - true.translation).norm() < length
