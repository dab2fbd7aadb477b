"""The network of landmarks, how it aligns, its checkpoint, and `evaluate` on the files of others."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

import svdrot
from experiments import shared
from experiments.rotation import evaluate, landmark_alignment
from experiments.rotation._disturbances import disturbed
from experiments.rotation._landmarks import LandmarkPointNet, Shape, align, normalized, pairs_of
from experiments.rotation._principal_axes import by_principal_axes
from svdrot.io.points import write_points

SHAPE = Shape(widths=(8, 16, 32), hidden=16, landmarks=8)

ROUNDING = 1e-4  # radians and entries: float32 through the network, measured 1e-6
ROUNDING_DEGREES = 0.05  # the angle of nearly equal float32 rotations, up to sqrt(eps) radians


def network(seed: int = 0) -> LandmarkPointNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LandmarkPointNet(SHAPE)


class Equivariant(LandmarkPointNet):
    """Its landmarks are the first points of a cloud: what the network is to become."""

    def landmarks(self, cloud):
        return cloud[..., :5, :].mT


def clouds(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed))


def rotations(*shape: int, seed: int = 0) -> torch.Tensor:
    return svdrot.random_rotation(*shape, generator=torch.Generator().manual_seed(seed))


# The network.


def test_a_cloud_and_itself_are_aligned_by_the_identity_whatever_the_weights():
    for seed in range(5):
        landmarks = network(seed).landmarks(clouds(4, 20, seed=seed))
        estimate = network(seed).estimate(landmarks, landmarks)
        torch.testing.assert_close(estimate, torch.eye(3).expand(4, 3, 3), rtol=0, atol=ROUNDING)


def test_landmarks_that_turn_with_the_cloud_give_its_rotation():
    x, r = clouds(6, 10), rotations(6)
    model = Equivariant(SHAPE)
    estimate = model.estimate(model.landmarks(x), model.landmarks(x @ r.mT))
    torch.testing.assert_close(estimate, r, rtol=0, atol=ROUNDING)


def test_forward_is_the_estimate_of_every_pair():
    views = clouds(3, 4, 9)
    model = network()
    together = model(views)
    for k, (i, j) in enumerate(pairs_of(4).T.tolist()):
        alone = model.estimate(model.landmarks(views[:, i]), model.landmarks(views[:, j]))
        torch.testing.assert_close(together[:, k], alone, rtol=0, atol=ROUNDING)


def test_the_loss_is_zero_for_landmarks_that_turn_with_the_cloud(monkeypatch):
    """Truths are of the same pairs, in the same direction."""
    monkeypatch.setattr(landmark_alignment, "LandmarkPointNet", Equivariant)
    points = landmark_alignment.Clouds(clouds(5, 10), torch.full((5,), 10))
    data = shared.clouds.Data(points, points)
    monkeypatch.setattr(landmark_alignment, "load", lambda root: data)
    config = landmark_alignment.Config(shape=SHAPE, clouds=2, points=("7", "7"), noise=0, outliers=0)
    task = landmark_alignment.prepare(config, "svd", 0)
    assert task.loss(task.model, *task.draw(torch.Generator().manual_seed(0))) < ROUNDING**2
    few, every, noise, outlier, other = task.evaluate(task.model).values()
    assert few < ROUNDING_DEGREES and every < ROUNDING_DEGREES and outlier > 10 and other > 10
    assert ROUNDING_DEGREES < noise < 2
    for name, errors in task.examine(task.model).items():
        condition, points, estimator = name.split("; ")
        assert points in landmark_alignment.CONDITIONS[condition].numbers and len(errors) == 10
        if condition == "the same points":
            assert errors.max() < ROUNDING_DEGREES, estimator


@pytest.mark.parametrize(("share", "others"), [(0, 0), (0.5, 2), (1, 4)])
def test_copies_of_a_share_of_the_clouds_have_other_points(monkeypatch, share, others):
    points = landmark_alignment.Clouds(clouds(5, 1000), torch.full((5,), 1000))
    data = shared.clouds.Data(points, points)
    monkeypatch.setattr(landmark_alignment, "load", lambda root: data)
    settings = {"points": ("20", "20"), "other_points": share, "noise": 0, "outliers": 0}
    config = landmark_alignment.Config(shape=SHAPE, clouds=4, copies=3, **settings)
    views, r = landmark_alignment.prepare(config, "svd", 0).draw(torch.Generator().manual_seed(0))
    assert views.shape == (4, 4, 20, 3) and r.shape == (4, 3, 3, 3)
    for k, cloud in enumerate(views):
        source, *copies = cloud
        assert len(source.unique(dim=0)) == 20
        same = [torch.equal(copy, source) for copy in copies]
        assert all(same) if k < 4 - others else not any(same)
        # All are points of one cloud.
        assert any((cloud[:, :, None] == every).all(-1).any(-1).all() for every in data.training.points)


def a_step(seed: int = 0, **settings) -> torch.Tensor:
    points = landmark_alignment.Clouds(clouds(5, 200), torch.full((5,), 200))
    config = landmark_alignment.Config(clouds=8, copies=2, **settings)
    return landmark_alignment.views(config, points, torch.Generator().manual_seed(seed))


def test_numbers_of_points_are_drawn_from_few_to_all():
    shapes = [a_step(seed, points=("10", "all")).shape for seed in range(200)]
    numbers = torch.tensor([shape[2] for shape in shapes]).double()
    assert numbers.min() >= 10 and numbers.max() <= 200
    wanted = torch.tensor([10 * 20**share for share in (0.25, 0.5, 0.75)])  # even by the logarithm
    found = numbers.quantile(torch.tensor([0.25, 0.5, 0.75]).double())
    assert ((found / wanted).log().abs() < 0.4).all()
    for clouds_number, _, points, _ in shapes:  # as many points in all, and shared by two processes
        assert clouds_number % 2 == 0 and (clouds_number == 2 or 40 <= clouds_number * points <= 80)


def test_some_clouds_have_noise_and_some_copies_outliers():
    calm = a_step(points=("20", "20"), noise=0, outliers=0)
    assert torch.equal(calm[:, 0], calm[:, 1])
    noisy = torch.cat([a_step(k, points=("20", "20"), noise=0.01, outliers=0) for k in range(50)])
    apart = (noisy[:, 0] - noisy[:, 1]).std((1, 2))
    assert apart.max() < 0.02 and (apart > 1e-6).float().mean() == pytest.approx(0.5, abs=0.1)
    spoiled = torch.cat([a_step(k, points=("20", "20"), noise=0, outliers=3) for k in range(50)])
    other = (spoiled[:, 0] != spoiled[:, 1]).any(-1)
    assert not other[:, 3:].any() and other[:, :3].sum(1).unique().tolist() == [0, 1, 2, 3]
    assert other.any(1).float().mean() == pytest.approx(0.25, abs=0.1)


def test_disturbed_points_are_noisy_or_as_far_as_they_should_be():
    generator = torch.Generator().manual_seed(0)
    cloud, nothing = clouds(4, 3000), torch.zeros(0)
    assert torch.equal(disturbed(cloud, 0.0, nothing, generator), cloud)
    noise = disturbed(cloud, 0.1, nothing, generator) - cloud
    assert noise.std().item() == pytest.approx(0.1, rel=0.02) and abs(noise.mean()) < 0.005
    far = disturbed(cloud, 0.0, torch.tensor([3.0, 0.0, 5.0]), generator)
    torch.testing.assert_close(far[:, [0, 2]].norm(dim=-1), torch.tensor([3.0, 5.0]).expand(4, 2))
    assert torch.equal(far[:, 1], cloud[:, 1]) and torch.equal(far[:, 3:], cloud[:, 3:])
    assert disturbed(cloud[:, :2], 0.0, torch.ones(3), generator).shape == (4, 2, 3)


@pytest.mark.parametrize("points", [("0", "all"), ("48", "some"), ("all", "48"), ("9", "8")])
def test_numbers_of_points_are_checked(points):
    with pytest.raises(ValueError, match="`points` must"):
        landmark_alignment.Config(points=points)


def test_a_training_begins_with_a_checkpoint(monkeypatch, checkpoint):
    points = landmark_alignment.Clouds(clouds(5, 10), torch.full((5,), 10))
    monkeypatch.setattr(landmark_alignment, "load", lambda root: shared.clouds.Data(points, points))
    config = landmark_alignment.Config(shape=SHAPE, initial=checkpoint)
    begun = landmark_alignment.prepare(config, "svd", 1).model.state_dict()
    assert all(torch.equal(begun[name], w) for name, w in network().state_dict().items())
    with pytest.raises(shared.run.UserError, match=r"`shape` must be that of .*svd\.pth"):
        landmark_alignment.prepare(landmark_alignment.Config(initial=checkpoint), "svd", 1)


# Without a network.


def test_principal_axes_are_exact_for_the_same_points():
    """Wherever they are, and in whatever order; of one cloud and many copies."""
    x, r = clouds(6, 300, seed=1) * torch.tensor([1.0, 2, 3]) + 5, rotations(6, 4)
    copies = x[:, None] @ r.mT
    estimates = by_principal_axes(x[:, None], copies[..., torch.randperm(300), :])
    assert torch.rad2deg(svdrot.geodesic_distance(estimates, r)).max() < ROUNDING_DEGREES


def test_principal_axes_are_rotations_of_whatever_clouds():
    for x, y in [(clouds(5, 9), clouds(5, 7, seed=1)), (torch.ones(1, 2, 3), torch.zeros(1, 1, 3))]:
        r = by_principal_axes(x, y)
        assert r.dtype == torch.float32 and svdrot.is_rotation(r).all()


def test_the_share_is_checked():
    with pytest.raises(ValueError, match=r"`other_points` must be in \[0, 1\]; got 2"):
        landmark_alignment.Config(other_points=2)


class Shy(Equivariant):
    """Its estimates turn half as far as they should, and only near the truth at all."""

    def estimate(self, source, target):
        vector = svdrot.matrix_to_axis_angle(super().estimate(source, target))
        angle = vector.norm(dim=-1, keepdim=True)
        return svdrot.axis_angle_to_matrix(torch.where(angle < math.pi / 2, vector / 2, 0.0))


def test_every_pass_takes_away_from_what_is_left():
    x = clouds(1, 10).expand(3, 10, 3)
    r = svdrot.axis_angle_to_matrix(torch.tensor([[0.8, 0, 0], [0, 0.6, 0], [0.1, 0.2, 0.3]]))
    left = [svdrot.geodesic_distance(align(Shy(SHAPE), x, x @ r.mT, passes), r) for passes in (1, 2, 4)]
    first = svdrot.geodesic_distance(r, torch.eye(3))
    for passes, angles in zip((1, 2, 4), left, strict=True):
        torch.testing.assert_close(angles, first / 2**passes, rtol=0, atol=10 * ROUNDING)


def test_the_best_start_is_taken_for_each_copy_alone():
    x = clouds(2, 1, 10)
    half_turns = torch.stack([torch.diag(torch.eye(3)[i] * 2 - 1) for i in range(3)])
    near = svdrot.axis_angle_to_matrix(0.1 * clouds(2, 5).squeeze())
    r = near @ torch.stack([torch.eye(3), *half_turns, torch.eye(3)])
    one, best = (svdrot.geodesic_distance(align(Shy(SHAPE), x, x @ r.mT, 12, starts), r) for starts in (1, 4))
    assert (one[:, 1:4] > 2).all() and (best < 0.01).all()


def test_normalized_clouds_turn_and_neither_move_nor_grow():
    x, r = clouds(30).double(), svdrot.special_orthogonalize(rotations(1)[0].double())
    expected = normalized(x)
    assert expected.mean(0).abs().max() < 1e-12
    assert expected.square().sum(-1).mean().item() == pytest.approx(1)
    for scale in (1e-200, 1e-20, 7.0, 1e200):
        moved = scale * (x @ r.T + torch.tensor([100.0, -20.0, 3.0]))
        torch.testing.assert_close(normalized(moved), expected @ r.T, rtol=0, atol=1e-10)


# The checkpoint and `evaluate`.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    file = tmp_path_factory.mktemp("checkpoint") / "svd.pth"
    landmark_alignment.save(file, landmark_alignment.Config(shape=SHAPE), network().state_dict())
    return file


def test_a_checkpoint_is_weights_and_settings_alone(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    assert content["config"]["passes"] == 4
    head = svdrot.nn.RotationHead(9, "svd")
    weights = {name.removeprefix("head."): w for name, w in content["state_dict"].items() if "head" in name}
    head.load_state_dict(weights)
    model, _ = landmark_alignment.restore(checkpoint)
    x = clouds(2, 20)
    assert torch.equal(model.landmarks(x), network().landmarks(x))


def test_earlier_checkpoints_without_means_still_load(tmp_path, checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    del content["state_dict"]["of_means.weight"]
    torch.save(content, tmp_path / "earlier.pth")
    model, _ = landmark_alignment.restore(tmp_path / "earlier.pth")
    assert not model.of_means.weight.any()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", {"a": 1}, {"config": {"shape": {"widht": 3}}}])
def test_other_files_are_no_checkpoints(content, tmp_path):
    file = tmp_path / "other.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(ValueError, match="not a checkpoint of landmark_alignment") as raised:
        landmark_alignment.restore(file)
    assert "weights_only" not in str(raised.value)


@pytest.fixture
def folder(tmp_path):
    """One cloud in every format, each moved and scaled in its own way, and one of three points."""
    folder = tmp_path / "clouds"
    folder.mkdir()
    x = clouds(40).double()
    np.savetxt(folder / "a.pts", 1e-3 * x.numpy() + 5)
    for k, suffix in enumerate(("npy", "ply", "xyz", "off")):
        write_points(folder / f"b.{suffix}", 10.0**k * x - k)
    np.save(folder / "c.npy", x[:3].float().numpy())
    (folder / "notes.md").write_text("no cloud")
    return folder


def run(monkeypatch, capsys, *arguments) -> list[list[float]]:
    monkeypatch.setattr(sys, "argv", ["evaluate", "--threads", "1", *map(str, arguments)])
    evaluate.main(shared.run.parse(evaluate.Config, None))
    lines = [line.split("|")[2:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    return [[float(word) for word in line] for line in lines[1:]]


def test_evaluate_is_deterministic_and_the_format_does_not_matter(
    monkeypatch, capsys, folder, checkpoint, tmp_path
):
    r = rotations(5).double()
    np.save(tmp_path / "matrices.npy", r.numpy())
    np.savetxt(tmp_path / "rows.txt", r.flatten(1).numpy())
    np.savetxt(tmp_path / "quaternions.txt", svdrot.matrix_to_quaternion(r).numpy())
    found = [
        run(
            monkeypatch,
            capsys,
            "--checkpoint",
            checkpoint,
            "--clouds",
            folder,
            "--rotations",
            tmp_path / name,
        )
        for name in ("matrices.npy", "rows.txt", "quaternions.txt", "matrices.npy")
    ]
    assert len(found[0]) == 3 and all(len(row) == 4 for row in found[0])
    assert found[0] == found[3]
    for other in found[1:3]:  # the same rotations, but for the rounding of their files
        np.testing.assert_allclose(other, found[0], rtol=1e-3, atol=1e-4)
    # Whatever it was moved and scaled by in its file, a cloud is the same to the network.
    config = evaluate.Config(folder, tmp_path, points="16")
    cloud = [next(evaluate.examined(config, x, rotations(1)))[0] for x in evaluate.read_clouds(folder)[:5]]
    for other in cloud[1:]:
        torch.testing.assert_close(other, cloud[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("points", "other", "number"), [("all", False, 40), ("16", False, 16)])
def test_points_are_drawn_once(tmp_path, points, other, number):
    check_drawn(evaluate.Config(tmp_path, tmp_path, points=points, other_points=other), number)


@pytest.mark.parametrize(("points", "number"), [("all", 20), ("16", 16), ("30", 20)])
def test_other_points_are_none_of_the_cloud(tmp_path, points, number):
    x, y = check_drawn(evaluate.Config(tmp_path, tmp_path, points=points, other_points=True), number)
    assert torch.cdist(x, y).min() > 1e-3


def check_drawn(config, number):
    r = rotations(3)
    (x, copies, truth), *more = evaluate.examined(config, clouds(40), r)
    assert not more and torch.equal(truth[0], r)
    assert x.shape == (1, number, 3) and copies.shape == (1, 3, number, 3)
    back = copies[0] @ r
    assert len(x[0].unique(dim=0)) == number
    torch.testing.assert_close(back, back[:1].expand_as(back), rtol=0, atol=1e-5)
    if not config.other_points:
        torch.testing.assert_close(back[0], x[0], rtol=0, atol=1e-5)
    return x[0], back[0]


def test_evaluate_disturbs_copies(tmp_path):
    config = evaluate.Config(tmp_path, tmp_path, noise=0.01, outliers=1)
    ((x, copies, r),) = evaluate.examined(config, clouds(4000), rotations(2))
    apart = copies @ r - x[:, None]
    assert apart[..., 1:, :].std().item() == pytest.approx(0.01, rel=0.05)
    torch.testing.assert_close(copies[..., 0, :].norm(dim=-1), torch.full((1, 2), 3.0))


def test_evaluate_measures_what_a_perfect_network_would_do(monkeypatch, capsys, folder, checkpoint, tmp_path):
    (folder / "c.npy").unlink()  # three points do not have five landmarks
    np.save(tmp_path / "r.npy", rotations(5).numpy())
    arguments = ("--checkpoint", checkpoint, "--clouds", folder, "--rotations", tmp_path / "r.npy")
    monkeypatch.setattr(evaluate, "restore", lambda file: (Equivariant(SHAPE), {"passes": 2, "starts": 2}))
    for points in ("all", "16"):
        for mean, median, five, ten in run(monkeypatch, capsys, *arguments, "--points", points):
            assert mean < ROUNDING_DEGREES and median < ROUNDING_DEGREES and five == ten == 100
    for mean, *_ in run(monkeypatch, capsys, *arguments, "--other-points"):
        assert mean > 10


def test_clouds_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="`clouds` must be a folder"):
        evaluate.read_clouds(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no clouds in files that end in"):
        evaluate.read_clouds(tmp_path)
    np.save(tmp_path / "point.npy", np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"point\.npy: the points are all the same"):
        evaluate.read_clouds(tmp_path)
    (tmp_path / "a.pts").write_text("")
    with pytest.raises(ValueError, match=r"a\.pts holds no points"):
        evaluate.read_clouds(tmp_path)
    (tmp_path / "a.pts").write_text("1 2 3\n4 5\n")
    with pytest.raises(ValueError, match=r"a\.pts, line 2"):
        evaluate.read_clouds(tmp_path)
    (tmp_path / "a.pts").write_text("nan 2 3\nnan 4 5\n")
    with pytest.raises(ValueError, match=r"a\.pts holds no points"):
        evaluate.read_clouds(tmp_path)


def test_points_that_are_not_finite_and_folders_are_left_out(tmp_path):
    (tmp_path / "a.pts").write_text("1 2 3\nnan 4 5\n6 7 8\n")
    (tmp_path / "b.ply").mkdir()
    (cloud,) = evaluate.read_clouds(tmp_path)
    assert cloud.tolist() == [[1, 2, 3], [6, 7, 8]]


def test_hidden_files_and_the_rotations_are_no_clouds(tmp_path):
    np.save(tmp_path / "cloud.npy", clouds(9).numpy())
    (tmp_path / "._cloud.pts").write_text("of another system")
    rotation = tmp_path / "rotations.txt"
    np.savetxt(rotation, rotations(7).flatten(1).numpy())
    assert len(evaluate.read_clouds(tmp_path, rotation)) == 1
    assert len(evaluate.read_clouds(tmp_path)) == 2


def test_bad_arguments_of_evaluate_are_named(tmp_path):
    for name in ("points", "threads"):
        with pytest.raises(ValueError, match=f"`{name}` must be .* 1.*; got 0"):
            evaluate.Config(tmp_path, tmp_path, **{name: 0})
    command = [sys.executable, "-m", "experiments.rotation.evaluate"]
    run = subprocess.run(
        [*command, "--clouds", "none", "--rotations", "none.npy"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 2
    assert run.stderr == "evaluate: --clouds must be a folder; there is none at none.\n"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5)), r"wanted \(K, 3, 3\), \(K, 9\), \(3 K, 3\) or \(K, 4\); got \(4, 5\)"),
        (np.zeros((0, 3, 3)), "holds no rotations"),
        (np.stack([np.eye(3), -np.eye(3)]), "number 2 of 2 is no rotation: it is off by 2"),
        (np.stack([np.eye(3), 1.01 * np.eye(3)]), "number 2 of 2 .* 0.01"),
        (np.full((1, 3, 3), np.nan), "number 1 of 1"),
        (np.array([[1.0, 0, 0, 0], [2.0, 0, 0, 0]]), "number 2 of 2 is no rotation: it is off by 1"),
        (np.array(["a", "b"]), "wanted one array of numbers"),
        (np.eye(3) + 0j, "wanted one array of numbers"),
        (np.eye(4), "got transforms, of homogeneous coordinates"),
        (np.eye(4)[None].repeat(3, 0), "got transforms, of homogeneous coordinates"),
    ],
    ids="shape none reflection scaled nan quaternion words complex transform transforms".split(),
)
def test_what_is_no_rotation_is_named(array, message, tmp_path):
    np.save(tmp_path / "r.npy", array)
    with pytest.raises(ValueError, match=message):
        evaluate.read_rotations(tmp_path / "r.npy")


def test_files_of_rotations_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="`rotations` must be a file"):
        evaluate.read_rotations(tmp_path / "none.npy")
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(ValueError, match=r"suffix must be \.npy, \.npz, \.pt, \.txt or \.csv"):
        evaluate.read_rotations(tmp_path / "r.json")
    (tmp_path / "r.txt").write_text("1 0 0 0\n1 0 0\n")
    with pytest.raises(ValueError, match=r"r\.txt, line 2: wanted 4 numbers; got '1 0 0'"):
        evaluate.read_rotations(tmp_path / "r.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="holds no rotations"):
        evaluate.read_rotations(tmp_path / "empty.txt")


@pytest.mark.parametrize(
    "text",
    [
        "0 -1 0\n1 0 0\n0 0 1\n",
        "0,-1,0,1,0,0,0,0,1\n",
        "0 -1 0\n1 0 0\n0 0 1\n" * 2,
        "# x y z w\n0 0 0.70710678 0.70710678\n",
        "q_x,q_y,q_z,q_w\n0,0,0.70710678,0.70710678\n",
        "rot_w rot_x rot_y rot_z\n0.70710678 0 0 0.70710678\n",
        "r00,r10,r20,r01,r11,r21,r02,r12,r22\n0,1,0,-1,0,0,0,0,1\n",
        "# a quarter turn about z\n0.70710678 0 0 0.70710678",
        "w,x,y,z\n0.70710678,0,0,0.70710678\n",
        "qx;qy;qz;qw\r\n0;0;0.70710678;0.70710678\r\n",
        '"r11", "r12", "r13", "r21", "r22", "r23", "r31", "r32", "r33"\n0, -1, 0, 1, 0, 0, 0, 0, 1',
    ],
    ids="matrix row matrices xyzw underscores names columns comment header order quotes".split(),
)
@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_texts_of_rotations(text, suffix, tmp_path):
    (tmp_path / f"r.{suffix}").write_text(text)
    found = evaluate.read_rotations(tmp_path / f"r.{suffix}")
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    torch.testing.assert_close(found, quarter.expand(len(found), 3, 3))
    assert len(found) == (2 if text.count("\n") == 6 else 1)


@pytest.mark.parametrize("header", ["i j k real", "a,b,c,d", "q0 q1 q2 q3"])
def test_a_header_that_says_nothing_known_is_refused(header, tmp_path):
    (tmp_path / "r.csv").write_text(f"{header}\n1 0 0 0\n")
    with pytest.raises(ValueError, match=r"r\.csv: wanted numbers, or names of columns: w x y z"):
        evaluate.read_rotations(tmp_path / "r.csv")


def test_arrays_in_files_of_numpy_and_torch(tmp_path):
    wanted = rotations(5)
    np.savez(tmp_path / "r.npz", R=wanted.numpy())
    torch.save(wanted, tmp_path / "r.pt")
    torch.save({"rotations": wanted}, tmp_path / "named.pt")
    for name in ("r.npz", "r.pt", "named.pt"):
        torch.testing.assert_close(evaluate.read_rotations(tmp_path / name), wanted)
    np.savez(tmp_path / "two.npz", R=wanted.numpy(), t=np.zeros(3))
    with pytest.raises(ValueError, match=r"two\.npz: wanted one array of numbers: it holds R, t"):
        evaluate.read_rotations(tmp_path / "two.npz")
    (tmp_path / "r.npz").rename(tmp_path / "zip.npy")
    torch.testing.assert_close(evaluate.read_rotations(tmp_path / "zip.npy"), wanted)
    (tmp_path / "broken.pt").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"broken\.pt: wanted one array"):
        evaluate.read_rotations(tmp_path / "broken.pt")


def test_folders_below_are_read_and_notes_are_not(tmp_path, capsys):
    for name in ("a", "below/b", "below/further/c", ".hidden/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / f"{name}.npy", clouds(9).numpy())
    (tmp_path / "README.txt").write_text("What these are.\n")
    assert len(evaluate.read_clouds(tmp_path)) == 3
    assert "left out" in (told := capsys.readouterr().err) and "README.txt, line 1" in told
