"""The alignment experiment on tiny runs: what it learns, writes, resumes and refuses."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import svdrot
from experiments import shared
from experiments.rotation import _comparison
from experiments.rotation import pointcloud_alignment as experiment
from experiments.shared import alignment

ROOT = Path(experiment.__file__).resolve().parents[2]

TINY = experiment.Config(
    heads=("svd", "quaternion"),
    steps=24,
    clouds=2,
    copies=3,
    points=16,
    widths=(8, 16, 32),
    hidden=16,
    warmup=2,
    training_shapes=32,
    validation_shapes=16,
    validation_rotations=3,
    evaluations=4,
    checkpoint_every=5,
    jobs=1,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = replace(TINY, out=tmp_path_factory.mktemp("finished"))
    experiment.run(config)
    return config


def read_csv(file):
    with file.open() as stream:
        return [
            {k: v if k in ("head", "variant") else float(v) for k, v in row.items()}
            for row in csv.DictReader(stream)
        ]


def load_checkpoint(config, training):
    return shared.training.load_checkpoint(config.out, training)


def trainings(config):
    return [(head, seed) for seed in config.seeds for head in config.heads]


def content(config, training):
    """The checkpoint of a training without its times."""
    saved = load_checkpoint(config, training)
    saved.pop("seconds")
    for point in saved["curve"]:
        point.pop("seconds")
    return saved


def assert_identical(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_identical(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_identical(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


# Learning.


def test_svd_head_learns_to_align_brackets(tmp_path):
    """To half of 126.5 degrees, the mean distance of two random rotations, on objects it has not seen."""
    config = replace(
        TINY,
        heads=("svd",),
        families=("bracket",),
        steps=500,
        clouds=4,
        copies=8,
        points=32,
        widths=(32, 64, 128),
        hidden=128,
        warmup=50,
        learning_rate=4e-3,
        out=tmp_path,
    )
    (row,) = experiment.run(config)
    assert row["mean"] < 126.5 / 2


def test_copies_are_the_rotated_clouds():
    """The encoder sees x and R x for columns x; R is what the loss compares with."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(2, 5, 3, generator=generator)
    rotation = svdrot.random_rotation(2, 3, generator=generator)
    model = alignment.SiamesePointNet("svd", (4, 4, 4), 4, 0.01)
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert model(source, rotation).shape == (2, 3, 3, 3)
    torch.testing.assert_close(seen[0][:, 0], source)
    torch.testing.assert_close(seen[0][:, 1:], torch.einsum("bkij,bnj->bkni", rotation, source))


def test_estimates_depend_on_the_set_of_points_alone():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(1, 6, 3, generator=generator)
    rotation = svdrot.random_rotation(1, 2, generator=generator)
    model = alignment.SiamesePointNet("6d", (4, 8, 16), 8, 0.01)
    shuffled = source[:, [5, 0, 1, 1, 4, 3, 2, 0]]
    torch.testing.assert_close(model(shuffled, rotation), model(source, rotation))


def test_heads_share_the_trunk_the_clouds_and_the_rotations():
    def begin(head, seed):
        torch.manual_seed(seed)
        return shared.training.Training(TINY, alignment.prepare(TINY, head, seed), seed)

    states = [begin(head, 5) for head in ("svd", "6d", "euler")]
    other = begin("svd", 6)
    models = [state.task.model for state in states]
    trunks = [{k: v for k, v in model.state_dict().items() if "head" not in k} for model in models]
    assert_identical(trunks[0], trunks[1])
    assert_identical(trunks[0], trunks[2])
    assert not torch.equal(next(other.task.model.parameters()), next(models[0].parameters()))
    batches = []
    for state in states:
        state.task.model.register_forward_pre_hook(lambda _, inputs: batches.append(inputs))
        state.advance()
    assert_identical(batches[0], batches[1])
    assert_identical(batches[0], batches[2])


@pytest.mark.parametrize("name", alignment.LOSSES)
def test_losses_are_least_at_the_truth_and_fall_towards_it(name):
    generator = torch.Generator().manual_seed(0)
    truth = svdrot.random_rotation(2, 5, generator=generator)
    source = torch.randn(2, 7, 3, generator=generator)
    turn = torch.randn(2, 5, 3, generator=generator)
    turn = turn / turn.norm(dim=-1, keepdim=True)
    values = [
        alignment.LOSSES[name](truth @ svdrot.axis_angle_to_matrix(angle * turn), truth, source)
        for angle in (0.0, 0.1, 1.0, 3.0)
    ]
    assert values[0].shape == (2, 5) and values[0].abs().max() < 1e-3
    for nearer, further in pairwise(values):
        assert (nearer < further).all()


def test_the_loss_of_clouds_is_that_of_their_points():
    """Self-supervised: it is of the copy that was seen and the cloud turned by the estimate."""
    generator = torch.Generator().manual_seed(0)
    truth, estimate = svdrot.random_rotation(2, 4, 3, generator=generator)
    source = torch.randn(4, 7, 3, generator=generator)
    found = alignment.LOSSES["clouds"](estimate, truth, source)
    for k in range(4):
        for c in range(3):
            apart = [estimate[k, c] @ x - truth[k, c] @ x for x in source[k]]
            by_hand = sum(float(v @ v) for v in apart) / len(apart) / 2
            assert found[k, c].item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("strategy", ["inference", "after_warmup"])
def test_raw_matrices_are_what_training_sees_and_rotations_what_evaluations_do(strategy):
    config = replace(TINY, strategy=strategy, switch=0.1)  # of 24 steps: 3
    state = shared.training.Training(config, alignment.prepare(config, "svd", 0), 0)
    projected, head = [], state.task.model.head
    head.register_forward_hook(lambda _, inputs, output: projected.append(svdrot.is_rotation(output).all()))
    for _ in range(5):
        state.advance()
    assert projected == ([False] * 5 if strategy == "inference" else [False] * 3 + [True] * 2)
    projected.clear()
    state.measured(state.task.examine)
    assert all(projected)


def test_losses_of_rotations_refuse_raw_matrices():
    with pytest.raises(ValueError, match=r"`loss` must be one of .* 'geodesic'"):
        replace(TINY, strategy="inference", loss="geodesic")


@pytest.mark.parametrize(
    "options",
    [{"loss": "clouds"}, {"loss": "huber", "optimizer": "muon"}, {"strategy": "manifold_gradient"}],
    ids=str,
)
def test_every_kind_of_training_learns(options):
    """A batch by heart: to less than half the loss in 80 steps."""
    config = replace(TINY, steps=80, widths=(16, 32, 64), hidden=64, learning_rate=4e-3, **options)
    torch.manual_seed(0)
    task = alignment.prepare(config, "svd", 0)
    batch = task.draw(torch.Generator().manual_seed(0))
    state = shared.training.Training(config, replace(task, draw=lambda generator: batch), 0)
    state.advance()
    before = state.mean_loss()
    while not state.ended():
        state.advance()
    assert task.loss(task.model, *batch) < before / 2


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path):
    config = replace(TINY, out=tmp_path, heads=("6d",), learning_rate=1e38, clip=None)
    with pytest.raises(shared.run.UserError, match=r"loss of 6d 0 became .* `learning_rate`"):
        experiment.run(config)


# Data.


def test_packed_clouds_keep_every_point_and_draw_only_their_own():
    clouds = [n + np.repeat(np.arange(n, dtype=np.float32)[:, None], 3, 1) / 16 for n in (2, 7, 4)]
    packed = shared.clouds.Clouds.pack(clouds)
    generator = torch.Generator().manual_seed(0)
    which = torch.tensor([2, 0, 1, 1])
    for points in (0, 50):
        drawn = packed.draw(which, points, generator)
        for k, cloud in zip(which.tolist(), drawn.numpy(), strict=True):
            assert {*cloud[:, 0].tolist()} == {*clouds[k][:, 0].tolist()}


def test_different_points_are_drawn_of_the_cloud_alone():
    clouds = [n + np.repeat(np.arange(n, dtype=np.float32)[:, None], 3, 1) / 16 for n in (2, 7, 4)]
    packed = shared.clouds.Clouds.pack(clouds)
    generator = torch.Generator().manual_seed(0)
    which = torch.tensor([2, 1, 1])
    for points, number in ((3, 3), (4, 4), (50, 4)):
        drawn = packed.draw_different(which, points, generator)
        assert drawn.shape == (3, number, 3)
        for k, cloud in zip(which.tolist(), drawn.numpy(), strict=True):
            assert len({*cloud[:, 0].tolist()} & {*clouds[k][:, 0].tolist()}) == number
    seen = torch.stack([packed.draw_different(which[1:2], 1, generator)[0, 0, 0] for _ in range(700)])
    assert seen.unique(return_counts=True)[1].min() > 60  # each of seven, 100 times but for chance


def test_principal_axes_stand_beside_the_heads(finished):
    verdict = json.loads((finished.out / "results.json").read_text())["verdict"]
    assert "Principal axes solve copies of the same points exactly" in verdict
    assert verdict.endswith("Here their mean error is 0.00 degrees.")


def test_axis_angle_rotations_have_uniform_angles():
    rotation = alignment.uniform_angle_rotation(
        40_000, device="cpu", generator=torch.Generator().manual_seed(0)
    )
    angle = torch.rad2deg(svdrot.geodesic_distance(torch.eye(3), rotation))
    quantiles = torch.quantile(angle, torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quantiles, torch.tensor([45.0, 90.0, 135.0]), atol=1.5, rtol=0)
    vector = rotation - rotation.mT  # points along the axis
    assert vector.mean(0).abs().max() < 0.02


# Evaluation.


def test_errors_are_the_angles_between_estimate_and_truth():
    class Still(torch.nn.Module):
        def forward(self, source, rotation):
            return torch.eye(3).expand_as(rotation)

    degrees = torch.tensor([[0.0, 10.0, 90.0], [45.0, 135.0, 180.0]])
    c, s, zero = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees)), torch.zeros(2, 3)
    truth = torch.stack([c, -s, zero, s, c, zero, zero, zero, zero + 1], -1).unflatten(-1, (3, 3))
    errors = alignment.errors_in_degrees(Still(), torch.zeros(2, 40_000, 3), truth)  # a cloud at a time
    torch.testing.assert_close(errors, degrees, atol=1e-3, rtol=0)


def test_metrics_by_hand():
    rows = shared.statistics.metrics(np.arange(101, dtype=np.float32)[::-1].reshape(101, 1), (5, 10))
    by_hand = {"mean": 50, "median": 50, "std": 850**0.5, "p5": 5, "p25": 25, "p75": 75, "p95": 95, "p99": 99}
    assert rows == pytest.approx({**by_hand, "max": 100, "acc@5": 500 / 101, "acc@10": 1000 / 101})


def test_every_training_has_the_same_examination():
    data = alignment.load(TINY)
    source, rotation = alignment.examination(TINY, data.validation)
    assert source.shape == (16, 16, 3) and rotation.shape == (16, 3, 3, 3)
    for config in (TINY, replace(TINY, heads=("6d",), seeds=(4,), steps=3)):
        assert_identical(alignment.examination(config, data.validation), (source, rotation))


# Run folder.


def test_files_agree_with_one_another(finished):
    folder = finished.out
    curves = read_csv(folder / "curves.csv")
    *_, rows = json.loads((folder / "results.json").read_text())["tables"].values()
    assert [(row["head"], row["seed"]) for row in rows] == trainings(finished)
    with np.load(folder / "errors.npz") as errors:
        assert set(errors.files) == {"svd-0", "quaternion-0"}
        for row in rows:
            of_head = errors[f"{row['head']}-0"]
            assert of_head.shape == (16, 3)
            for name, value in shared.statistics.metrics(of_head, (5, 10)).items():
                assert row[name] == pytest.approx(value, rel=1e-9)
            curve = [point for point in curves if point["variant"] == row["head"]]
            assert [point["step"] for point in curve] == [6, 12, 18, 24]
            assert curve[-1]["mean_deg"] == pytest.approx(of_head[:, 0].mean(), rel=1e-5)
    table = (folder / "table.md").read_text()
    order = [row["head"] for row in sorted(rows, key=lambda row: row["mean"])]
    assert re.findall(r"^\| (\w+) \| 1 \|", table, re.MULTILINE) == order
    assert shared.run.command() in table and "16 validation clouds" in table
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.rglob(".*"))  # no temporary files


def test_table_aggregates_over_seeds():
    rows = [
        {"head": head, "seed": seed, **dict.fromkeys(_comparison.SUMMED_UP, mean)}
        for head, seed, mean in [("6d", 0, 20.0), ("6d", 1, 24.0), ("svd", 0, 3.0), ("svd", 1, 5.0)]
    ]
    svd, six = _comparison.summary(rows)
    assert [*svd.values()][:3] == ["svd", 2, "4.00 (3.00 to 5.00)"]
    assert [*six.values()][:3] == ["6d", 2, "22.0 (20.0 to 24.0)"]
    assert shared.statistics.spread([1, 2, 3, 2, 2]) == "2.00 ± 0.71"  # of five
    assert shared.statistics.spread([2]) == "2.00"


def test_interrupted_training_ends_bit_identical(finished, tmp_path):
    config = replace(finished, out=tmp_path)
    for events in (1, 3):  # before the first checkpoint; after the second, on the way to the third
        training = shared.training.train(config, config.out, alignment.prepare, ("svd", 0))
        list(islice(training, events))
        training.close()
    interrupted = load_checkpoint(config, ("svd", 0))
    assert 0 < interrupted["step"] < config.steps and "examined" not in interrupted
    experiment.run(config)
    for training in trainings(config):
        assert_identical(content(config, training), content(finished, training))


def command_line(config):
    words = []
    for entry in fields(config):
        value = getattr(config, entry.name)
        words += [f"--{entry.name}", *map(str, value if isinstance(value, tuple) else [value])]
    return [sys.executable, "-m", "experiments.rotation.pointcloud_alignment", *words]


@pytest.mark.long
def test_killed_command_goes_on_bit_identical(tmp_path):
    """Two processes, killed without warning: both end, and what two others make of it is what one would."""
    undisturbed = replace(
        TINY, heads=("6d", "euler"), steps=150, checkpoint_every=10, out=tmp_path / "undisturbed"
    )
    killed = replace(undisturbed, jobs=2, out=tmp_path / "killed")
    process = subprocess.Popen(
        command_line(killed), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 300
    while not load_checkpoint(killed, ("6d", 0)) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    output, _ = process.communicate(timeout=300)  # returns when the last process has closed its end
    assert process.returncode == -signal.SIGKILL, output
    assert "examined" not in load_checkpoint(killed, ("6d", 0))
    experiment.run(killed)
    experiment.run(undisturbed)
    for training in trainings(undisturbed):
        assert_identical(content(killed, training), content(undisturbed, training))


def test_a_failure_in_a_process_is_raised(tmp_path):
    config = replace(TINY, out=tmp_path, heads=("quaternion", "6d"), learning_rate=1e38, clip=None, jobs=2)
    with pytest.raises(shared.run.UserError, match="the loss of"):
        experiment.run(config)
    with pytest.raises(RuntimeError, match=r"Traceback(.|\n)*TypeError: object of type 'int' has no len"):
        list(shared.run.in_parallel(len, [1, 2], 2))


def test_finished_trainings_stay_when_others_are_added(finished, tmp_path):
    shutil.copytree(finished.out, tmp_path / "run")
    config = replace(finished, out=tmp_path / "run", heads=("svd", "6d"), seeds=(0, 1))
    before = shared.training.checkpoint(config.out, ("svd", 0)).stat().st_mtime_ns
    rows = experiment.run(config)
    assert [(row["head"], row["seed"]) for row in rows] == [("svd", 0), ("6d", 0), ("svd", 1), ("6d", 1)]
    assert shared.training.checkpoint(config.out, ("svd", 0)).stat().st_mtime_ns == before
    assert load_checkpoint(config, ("quaternion", 0))


@pytest.mark.parametrize(
    "field", ["steps", "widths", "learning_rate", "points", "rotations", "training_shapes"]
)
def test_another_setting_is_refused_by_name(finished, field):
    other = {"widths": (8, 16, 16), "rotations": "axis-angle"}.get(field, getattr(finished, field))
    other = other if other != getattr(finished, field) else other * 2
    before = (finished.out / "config.json").read_bytes()
    with pytest.raises(ValueError, match=f"`{field}` = .*--out"):
        experiment.run(replace(finished, **{field: other}))
    assert (finished.out / "config.json").read_bytes() == before


def test_other_data_are_refused(finished, monkeypatch):
    monkeypatch.setattr(shared.clouds.Data, "digest", lambda _: "0" * 64)
    with pytest.raises(ValueError, match="`data_sha256`"):
        experiment.run(finished)


def test_run_folder_records_code_and_machine(finished):
    record = json.loads((finished.out / "config.json").read_text())
    assert record["settings"]["widths"] == [8, 16, 32]
    (command,) = record["commands"]
    assert command["torch"] == torch.__version__ and command["machine"]
    assert re.fullmatch(r"[0-9a-f]{40}( with changes)?|none", command["commit"])


def test_an_aborted_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "kept.txt"
    with shared.run.replacing(file) as new:
        new.write_text("old")
    with pytest.raises(ZeroDivisionError), shared.run.replacing(file) as new:
        new.write_text("half")
        raise ZeroDivisionError
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


# Command line.


def parse(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    return shared.run.parse(experiment.Config(), experiment.__doc__, {"--full": experiment.FULL})


def test_flags_set_fields_and_presets_others(monkeypatch):
    assert parse(monkeypatch) == experiment.Config()
    assert parse(monkeypatch, "--full") == experiment.FULL
    quick = parse(monkeypatch, "--heads", "10d", "6d", "--seeds", "3", "--data", "planes", "--clip", "None")
    assert quick == experiment.Config(heads=("10d", "6d"), seeds=(3,), data="planes", clip=None)
    assert parse(monkeypatch, "--steps", "7", "--full") == replace(experiment.FULL, steps=7)


@pytest.mark.parametrize(
    "arguments", [["--step", "7"], ["--heads", "7d"], ["--data", "cars"], ["extra"]], ids=str
)
def test_unknown_flags_and_values_are_refused(monkeypatch, arguments):
    with pytest.raises(shared.run.UserError, match=arguments[-1]):
        parse(monkeypatch, *arguments)


@pytest.mark.parametrize("wrong", [{"heads": ()}, {"seeds": ()}, {"steps": 0}, {"jobs": 0}], ids=str)
def test_empty_runs_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must"):
        replace(TINY, **wrong)


def test_missing_aeroplanes_are_named(tmp_path):
    with pytest.raises(shared.run.UserError, match=r"`root` must .*RotationContinuity"):
        experiment.run(replace(TINY, data="planes", root=tmp_path / "nowhere", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
