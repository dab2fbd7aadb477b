"""The experiments on rotation heads, in small: their laws, their rows and their files."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import svdrot
from datasets import bvh
from experiments import shared
from experiments.rotation import (
    _comparison,
    cube_image_pose,
    gradient_conditioning,
    head_comparison_report,
    inverse_kinematics,
    noise_svd_vs_gs,
    sanity_autoencoder,
)


@pytest.fixture(autouse=True)
def command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["experiment"])


def tables(folder):
    """The tables of a finished experiment, in order, after a look at its other files."""
    assert (folder / "figure.png").stat().st_size > 10_000 and (folder / "table.md").exists()
    return list(json.loads((folder / "results.json").read_text())["tables"].values())


# Noise and its projection. Means of 20,000 draws stay within four standard errors: 1 in 16,000 does not.

NOISES = ("normal", "uniform", "signs", "turned columns")
SMALL = noise_svd_vs_gs.Config(draws=20_000, sigmas=(0.01,))
FAR = 4


@pytest.mark.parametrize("kind", NOISES)
def test_noise_has_its_deviation(kind):
    rotation = svdrot.random_rotation(40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    m, s = noise_svd_vs_gs.noisy(kind, 0.05, rotation, np.random.default_rng(0))
    n = rotation.mT @ (m - rotation)
    entries = n[:, ~torch.eye(3, dtype=torch.bool)]
    assert entries.mean().abs() < FAR * s / math.sqrt(entries.numel())
    assert entries.square().mean().sqrt().item() == pytest.approx(s, rel=0.01)
    if kind == "turned columns":
        torch.testing.assert_close(m.norm(dim=-2), torch.ones(len(m), 3, dtype=torch.float64))


@pytest.mark.parametrize("kind", NOISES)
def test_small_noise_is_projected_as_the_theory_says(kind):
    found, s = noise_svd_vs_gs.errors(kind, 0.01, SMALL)
    values = noise_svd_vs_gs.estimated(found)
    left = (3, 6) if kind == "turned columns" else (6, 9)
    first_order = {"E SVD": 3, "E GS": 6, "ratio": 2, "left SVD": left[0], "left GS": left[1]}
    if kind == "normal":
        first_order |= {"GS nearer": (math.atan(2) - 0.4) / math.pi}
        first_order |= {"deg SVD": math.degrees(math.sqrt(4 / math.pi) * s)}
        first_order |= {"deg GS": math.degrees(math.sqrt(8 / math.pi) * s)}
    for name, expected in first_order.items():
        value, error = values[name]
        beyond = 3 * s**2 * expected  # second order: 3.07 and 6.24 at s = 0.25
        assert abs(value - expected) < FAR * error + beyond, name


def test_noise_is_compared_and_written(tmp_path):
    noise_svd_vs_gs.main(noise_svd_vs_gs.Config(draws=5_000, sigmas=(0.125, 0.25, 1.0), out=tmp_path))
    rows, checks = tables(tmp_path)
    assert len(rows) == 3 * 3 + 2  # columns are not turned by sigma 1
    assert len(checks) == 3 * len(noise_svd_vs_gs.MEASURES)
    assert all(abs(row["difference"]) < FAR for row in checks)


# Gradients.

GRADIENTS = gradient_conditioning.Config(draws=50_000, jacobians=1_000, matrices=100)


def test_the_expected_spectrum_is_the_integral_of_the_density():
    """Along s₂ (1 + p, 1, q - 1), p > 0 and 0 < q < 2; the length of s has a chi distribution of 9."""
    from scipy.stats import chi

    x, w = np.polynomial.legendre.leggauss(60)

    def nodes(edges):
        low, high = edges[:-1, None], edges[1:, None]
        return (low + (high - low) * (x + 1) / 2).ravel(), (w * (high - low) / 2).ravel()

    u, wu = nodes(np.linspace(0, 1, 4))
    q, wq = nodes(2 * np.linspace(0, 1, 13) ** 3)
    p, wp = u / (1 - u), wu / (1 - u) ** 2
    a, b, c = 1 + p[:, None], 1.0, q - 1
    length = np.sqrt(a**2 + b**2 + c**2)
    mass = wp[:, None] * wq * (a**2 - b**2) * (a**2 - c**2) * (b**2 - c**2) / length**9
    mass /= mass.sum()
    exact = {name: value for name, (_, value) in gradient_conditioning.EXPECTED.items()}
    for limit, share in (
        (0.01, exact["P(gap < 0.01)"]),
        (0.1, exact["P(gap < 0.1)"]),
        (exact["gap, median"], 0.5),
    ):
        assert (mass * chi.cdf(limit * length / q, 9)).sum() == pytest.approx(share, rel=1e-5)
    # The share of directions with a condition (2 + p) / q above a limit has an edge: to the size of a cell.
    condition = (2 + p[:, None]) / q
    for limit, share in ((exact["condition, median"], 0.5), (exact["condition, 99 %"], 0.01)):
        assert mass[condition > limit].sum() == pytest.approx(share, rel=2e-2)


def test_singular_values_of_the_jacobian_are_two_over_sums():
    assert gradient_conditioning.formula_error(replace(GRADIENTS, jacobians=500)) < 1e-11


@pytest.mark.parametrize("name", svdrot.nn.REPRESENTATIONS)
def test_conditions_of_the_maps(name):
    """Closed forms where there are: conformal maps, rotation vectors, Euler angles, Gram-Schmidt."""
    raw = gradient_conditioning.raw_numbers(name, "untrained", replace(GRADIENTS, jacobians=200))
    s = gradient_conditioning.jacobian_singular_values(name, raw)
    assert (s[:, 2] > 0).all() and (s[:, 3:] < 1e-12 * s[:, :1]).all()
    condition = s[:, 0] / s[:, 2]
    if name in ("quaternion", "mrp"):
        expected = torch.ones_like(condition)
    elif name == "axis_angle":
        half = raw.norm(dim=-1) / 2
        expected = half / half.sin().abs()
    elif name == "euler":
        tilt = raw[:, 1].sin().abs()
        expected = ((1 + tilt) / (1 - tilt)).sqrt()
    elif name == "6d":
        # Turns about the third axis: 1 / |x|. About the others: tips of x and of the rest of y, of length h.
        x, y = raw[:, :3], raw[:, 3:]
        length = x.norm(dim=-1)
        along = (x * y).sum(-1) / length
        h = (y.square().sum(-1) - along**2).sqrt()
        zero = torch.zeros_like(h)
        block = torch.stack([1 / length, zero, along / (length * h), 1 / h], -1).unflatten(-1, (2, 2))
        all_three = torch.cat([torch.linalg.svdvals(block), 1 / length[:, None]], -1)
        expected = all_three.amax(-1) / all_three.amin(-1)
    else:
        return
    torch.testing.assert_close(condition, expected, rtol=1e-9, atol=0)


def test_trained_numbers_are_of_rotations():
    config = replace(GRADIENTS, noise=0.0, jacobians=50)
    for name, (features, to_matrix, from_matrix, _) in svdrot.nn.REPRESENTATIONS.items():
        raw = gradient_conditioning.raw_numbers(name, "trained", config)
        assert raw.shape == (50, features)
        torch.testing.assert_close(from_matrix(to_matrix(raw)), raw, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", gradient_conditioning.SINGULAR_VALUES | gradient_conditioning.EXACT)
def test_the_exact_gradient_is_the_slope_of_the_projection(name):
    """Against central differences in double precision, where the nearest rotation is unique."""
    m, c = gradient_conditioning.hard_case(name, 3, torch.Generator().manual_seed(0))
    values = (gradient_conditioning.SINGULAR_VALUES | gradient_conditioning.EXACT)[name]
    s = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(m), s.abs().expand(3, 3), rtol=0, atol=1e-12)
    if s[1] + s[2] <= 0:
        return
    step = 1e-6
    steps = step * torch.eye(9, dtype=torch.float64).reshape(9, 1, 3, 3)
    up, down = (
        (svdrot.special_orthogonalize(m + sign * steps) * c).sum((-2, -1)).mT.reshape(3, 3, 3)
        for sign in (1, -1)
    )
    slope = (up - down) / (2 * step)
    scale = c.norm(dim=(-2, -1)).max() * (2 / (s[1] + s[2])) ** 3  # of the third derivative
    torch.testing.assert_close(
        gradient_conditioning.exact_gradient(m, c), slope, rtol=0, atol=1e-8 + scale.item() * step**2
    )


def test_gradients_are_judged_and_written(tmp_path):
    gradient_conditioning.main(replace(GRADIENTS, out=tmp_path))
    spectrum, jacobians, columns, codes = tables(tmp_path)
    assert {row["of"] for row in spectrum} == set(gradient_conditioning.EXPECTED)
    assert all(abs(row["found"] - row["exact"]) < FAR * row["standard error"] for row in spectrum[:3])
    assert len(jacobians) == 2 * len(svdrot.nn.REPRESENTATIONS) and len(columns) == 2 * 5
    at = {(row["singular values"], row["code"]): row for row in codes}
    assert at["identity", "torch SVD"]["not finite, % (32)"] == 100
    for name in gradient_conditioning.SINGULAR_VALUES | gradient_conditioning.EXACT:
        ours = at[name, "svdrot"]
        assert ours["not finite, % (32)"] == ours["not finite, % (64)"] == 0
        if "gap" not in name and name != "zero":
            assert ours["largest error (32)"] < 2e-5 and ours["largest error (64)"] < 1e-12


# Heads, trained. Of 126.5 degrees, the mean distance of two random rotations, little must be left.

ALL = tuple(shared.heads.HEADS)
SANITY = sanity_autoencoder.Config(
    steps=4, seeds=(0, 1), tests=50, evaluations=2, checkpoint_every=3, jobs=1, hidden=8
)
CUBES = cube_image_pose.Config(
    steps=4, seeds=(0, 1), size=8, images=40, evaluations=2, checkpoint_every=3, jobs=1, hidden=8
)
MOTION = inverse_kinematics.Config(
    steps=4, seeds=(0, 1), evaluations=2, checkpoint_every=3, jobs=1, hidden=8, batch=4
)
REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "mocap_ik"


def in_folders(config, folder):
    return replace(config, run_folder=folder / "run", out=folder / "out")


@pytest.mark.parametrize(("head", "steps"), [("svd", 100), ("raw", 100)])
def test_the_autoencoder_learns(head, steps, tmp_path):
    config = replace(
        in_folders(SANITY, tmp_path), heads=(head,), seeds=(0,), steps=steps, hidden=64, tests=500, warmup=10
    )
    (row,) = sanity_autoencoder.run(replace(config, learning_rate=5e-3))
    assert row["mean"] < 20 and row["head"] == head and row["steps"] == steps


def test_raw_is_projected_at_inference_only():
    model = sanity_autoencoder.Autoencoder("raw", 8, 0.01)
    rotation = svdrot.random_rotation(5, generator=torch.Generator().manual_seed(0))
    assert not svdrot.is_rotation(model(rotation)).any()
    assert svdrot.is_rotation(model.eval()(rotation)).all()
    svd = sanity_autoencoder.Autoencoder("svd", 8, 0.01)
    svd.load_state_dict(model.state_dict())
    torch.testing.assert_close(svd(rotation), model(rotation))


@pytest.mark.parametrize(
    ("experiment", "config"), [(sanity_autoencoder, SANITY), (cube_image_pose, CUBES)], ids=["sanity", "cube"]
)
def test_heads_see_the_same_batches_from_the_same_trunk(experiment, config):
    drawn, trunks = [], []
    for head in ("svd", "euler"):
        torch.manual_seed(3)
        task = experiment.prepare(config, head, 3)
        drawn.append(task.draw(torch.Generator().manual_seed(3)))
        trunks.append([value for name, value in task.model.state_dict().items() if "head" not in name])
    for a, b in (*zip(*drawn, strict=True), *zip(*trunks, strict=True)):
        assert torch.equal(a, b)


def test_cubes_are_tested_on_images_of_their_own():
    parts = cube_image_pose.load(CUBES.images, CUBES.size)
    rotations = torch.cat([rotations for _, rotations in parts])
    closest = svdrot.geodesic_distance(rotations[:, None], rotations).fill_diagonal_(math.inf).min()
    assert len(parts) == 3 and closest > 0.01
    for images, rotations in parts:
        torch.testing.assert_close(cube_image_pose.cubes.render(rotations, CUBES.size), images)


@pytest.fixture(scope="module")
def people():
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not there: the skeleton and the clips of motion capture.")
    return inverse_kinematics.load(REAL)


def test_a_turned_frame_is_the_same_pose(people):
    """Positions turn about the vertical with the first joint, and the hip stays where it is."""
    frames, angle = people.held_out[:5], torch.tensor([0.0, 0.5, 1.0, 2.0, -3.0])
    seen, turned = (
        bvh.forward_kinematics(people.skeleton, rotations)
        for rotations in (frames, inverse_kinematics.turned(frames, angle))
    )
    assert seen[:, 0].abs().max() < 1e-6 and 1.0 < seen[..., 1].max() - seen[..., 1].min() < 2.5  # meters
    torch.testing.assert_close(turned[..., 1], seen[..., 1])
    x, z = seen[..., 0], seen[..., 2]
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    torch.testing.assert_close(turned[..., 0], cos * x + sin * z)
    torch.testing.assert_close(turned[..., 2], cos * z - sin * x)


class Answers(torch.nn.Module):
    """In the place of a network: rotations known beforehand."""

    def __init__(self, rotations):
        super().__init__()
        self.rotations = rotations

    def forward(self, positions):
        return self.rotations[: len(positions)]


def test_right_joints_leave_no_error_and_wrong_ones_their_distance(people):
    config = replace(MOTION, root=REAL)
    task = inverse_kinematics.prepare(config, "svd", 0)
    truth = people.held_out[:4]
    seen = bvh.forward_kinematics(people.skeleton, truth)
    assert task.loss(Answers(truth), seen) < 1e-12
    other = people.held_out[-4:]
    off = bvh.forward_kinematics(people.skeleton, other) - seen
    beside = [people.skeleton.parents[node] == 0 for node in range(57)]
    assert sum(beside) == 3
    expected = off.square().mean() + 10 * off[:, torch.tensor(beside)].square().mean()
    torch.testing.assert_close(task.loss(Answers(other), seen), expected)
    (batch,) = task.draw(torch.Generator().manual_seed(0))
    assert batch.shape == (4, 57, 3) and task.model(batch).shape == (4, 43, 3, 3)
    assert task.examine(task.model)["errors"].shape == (len(people.held_out),)


@pytest.mark.parametrize("name", ["sanity_autoencoder", "cube_image_pose", "inverse_kinematics"])
def test_every_head_is_trained_compared_and_written(name, tmp_path, request, monkeypatch):
    experiment, config = {
        "sanity_autoencoder": (sanity_autoencoder, SANITY),
        "cube_image_pose": (cube_image_pose, CUBES),
        "inverse_kinematics": (inverse_kinematics, replace(MOTION, root=REAL)),
    }[name]
    if experiment is inverse_kinematics:
        request.getfixturevalue("people")
        whole = inverse_kinematics.load(REAL)
        few = replace(whole, training=whole.training[:50], held_out=whole.held_out[:10])
        monkeypatch.setattr(inverse_kinematics, "load", lambda root: few)
    config = replace(in_folders(config, tmp_path), heads=ALL, seeds=(7,))
    rows = experiment.run(config)
    assert [(row["head"], row["seed"]) for row in rows] == [(head, 7) for head in ALL]
    assert all(math.isfinite(row["mean"]) and row["mean"] <= row["max"] for row in rows)
    summary, decisions, each = tables(config.out)
    assert len(summary) == len(ALL) and len(each) == len(rows)
    assert [row["mean"] for row in each] == [row["mean"] for row in rows]
    assert {row["decided"] for row in decisions} == {"no: fewer than 5 seeds"}

    def forbidden(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(shared.training.Training, "advance", forbidden)
    assert experiment.run(config) == rows


def test_trainings_that_end_early_are_drawn(tmp_path):
    """Of two seeds and heads, with a patience that some outlast."""
    config = replace(in_folders(SANITY, tmp_path), heads=("svd", "euler"), steps=12, learning_rate=1.0)
    rows = sanity_autoencoder.run(replace(config, evaluations=12, patience=1))
    assert len({row["steps"] for row in rows}) > 1
    tables(config.out)


def comparison(**means):
    rows = [
        {"head": head, "seed": seed, "mean": mean}
        for head, values in means.items()
        for seed, mean in enumerate(values)
    ]
    (line,) = shared.statistics.decide(rows, [("svd", "6d")])
    return line


def test_what_is_decided():
    ahead = comparison(**{"svd": (1, 2, 3, 2, 1), "6d": (4, 5, 4, 5, 4)})
    assert ahead["decided"] == "yes" and ahead["ahead in"] == 5 and ahead["ahead by"] == pytest.approx(2.6)
    assert (ahead["at least"], ahead["at most"]) == (1, 3)
    assert comparison(**{"svd": (4, 5, 4, 5, 4), "6d": (1, 2, 3, 2, 1)})["decided"] == "the contrary"
    # Ahead by the same in every seed, and yet overlapping: seeds differ by more than heads do.
    paired = comparison(**{"svd": (1, 2, 3, 4, 5), "6d": (1.5, 2.5, 3.5, 4.5, 5.5)})
    assert paired["decided"].startswith("no: they overlap") and paired["at least"] == paired["at most"] == 0.5
    assert comparison(**{"svd": (1, 1), "6d": (2, 2)})["decided"] == "no: fewer than 5 seeds"
    assert comparison(**{"svd": (1,) * 6, "6d": (2,) * 5})["seeds"] == 5
    assert shared.statistics.decide([], [("svd", "6d")]) == []


def test_unknown_heads_are_refused():
    with pytest.raises(ValueError, match=r"`heads` must be one of .*; got 7d"):
        replace(SANITY, heads=("svd", "7d"))
    with pytest.raises(ValueError, match='leave "raw" out'):
        replace(SANITY, loss="geodesic")


# The report.


def test_a_head_that_no_list_names_is_reported(tmp_path):
    generator = torch.Generator().manual_seed(0)
    curve = [{"step": step, "loss": 1.0, "seconds": 1.0, "mean_deg": 9.0 - step} for step in (1, 2)]
    results = {
        (head, 0): {"examined": {"errors": torch.rand(9, generator=generator)}, "curve": curve}
        | {"step": 2, "seconds": 1.0}
        for head in (*shared.heads.HEADS, "a_new_one", "another")
    }
    (_, right), wanted = (
        _comparison.figure(results, "degrees").axes,
        [shared.heads.label(h) for h, _ in results],
    )
    assert right.get_legend_handles_labels()[1] == wanted
    assert len({(line.get_color(), line.get_linestyle()) for line in right.lines}) == len(wanted)
    _comparison.write(tmp_path, SANITY, results, unit="degrees", expected=[], setting="")
    for table in tables(tmp_path):
        assert {row["head"] for row in table} == {head for head, _ in results}


def test_heads_have_the_same_style_in_all_figures():
    for head, style in shared.heads.styles(shared.heads.HEADS).items():
        assert shared.heads.styles([head]) == {head: style}


def results_of(folder, name, subject="head", mean="mean", **means):
    """What an experiment leaves, of mean errors by head and seed."""
    rows = [
        {subject: head, "seed": seed, mean: error}
        for head, some in means.items()
        for seed, error in enumerate(some)
    ]
    content = {
        "command": f"python -m {name}",
        "commit": "c0ffee",
        "machine": "this one",
        "verdict": f"So {name}.",
    }
    (folder / name).mkdir(parents=True)
    (folder / name / "results.json").write_text(json.dumps({**content, "tables": {"each": rows}}))


def test_the_report_orders_heads_and_says_what_is_missing(tmp_path, capsys):
    apart = {"quaternion": (5, 6, 7, 8, 9), "svd": (1, 1, 1, 1, 2), "6d": (2, 2, 2, 2, 2), "euler": (10, 20)}
    results_of(tmp_path, "sanity_autoencoder", **apart)
    results_of(tmp_path, "inverse_kinematics", svd=(3,) * 5, quaternion=(1,) * 5)
    results_of(tmp_path, "noise_svd_vs_gs")
    results_of(tmp_path, "train_vs_inference", "strategy", "mean deg", inference=(2,) * 5, always=(1,) * 5)
    for name in ("pointcloud_alignment", "another"):
        results_of(tmp_path, name, **{"svd": (1.5,), "6d": (3,), "new one": (6,)})
    out = tmp_path / "head_comparison_report"
    for _ in range(2):  # it does not read itself
        head_comparison_report.main(head_comparison_report.Config(tmp_path, out))
    page = (out / "report.md").read_text()
    assert (out / "figure.png").stat().st_size > 10_000
    assert "* sanity_autoencoder: svd ~ 6d < quaternion ~ euler\n" in page
    assert "* inverse_kinematics: quaternion < svd\n" in page
    assert "| svd | quaternion | sanity_autoencoder | inverse_kinematics | - |" in page
    assert "| svd | 6d | - | - | sanity_autoencoder, pointcloud_alignment, another |" in page
    assert "| 6d | quaternion | sanity_autoencoder | - | - |" in page
    assert "* train_vs_inference: always < inference\n" in page
    assert "* pointcloud_alignment: svd ~ 6d ~ new one\n" in page
    assert "| svd | 1.00 ± 0.37 (5) | 1.00 (1) | 3.00 ± 0.00 (5) | 1.00 (1) |" in page
    assert "| euler | 12.5 (8.3 to 16.7) (2) | - | - | - |" in page
    assert "| always |" not in page
    assert "fewer than 5 seeds of euler." in page
    missing = [line for line in page.splitlines() if line.startswith("* No results of")]
    assert len(missing) == 3 and "experiments.rotation.cube_image_pose`" in page
    assert "experiments.rotation.pointcloud_alignment --loss clouds`" in page
    assert page.index("So noise_svd_vs_gs.") < page.index("So sanity_autoencoder.")
    assert "(../noise_svd_vs_gs/table.md)" in page and "(../pointcloud_alignment/table.md)" in page


def test_the_report_refuses_what_is_no_result(tmp_path):
    config = head_comparison_report.Config(tmp_path)
    with pytest.raises(FileNotFoundError, match="run the experiments first"):
        head_comparison_report.read(config)
    (tmp_path / "one").mkdir()
    file = tmp_path / "one" / "results.json"
    for content in ("{", "[]", '{"tables": {}}'):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"one/results\.json is not the results of an experiment"):
            head_comparison_report.read(config)
