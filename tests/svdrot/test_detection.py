"""Conventions that are found, those that the rows leave open, and rotations that have nothing in common."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

import svdrot
from svdrot.conventions import _readings, _relations, _search, change_of_axes, detect
from svdrot.conventions._chance import log_chance

TURN = _relations.octahedral()


def turns(n: int, seed: int = 0) -> Tensor:
    return svdrot.random_rotation(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def noise(n: int, size: float, seed: int = 99) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return svdrot.random_small_rotation(n, scale=size, dtype=torch.float64, generator=generator)


def ran(code: str, a: Tensor) -> Tensor:
    """The tensor `b` that a line of code makes of `a`."""
    names = {"a": a, "svdrot": svdrot}
    exec(code, names)
    return names["b"]


def assert_found(a, b, *words: str):
    """Check that one convention is found, that it is told by `words`, and return what it makes of a."""
    found = detect(a, b)
    assert found.verdict == "found", str(found)
    (one,) = found.conventions
    told = " | ".join((one.a, one.b, *one.relation))
    assert all(word in told for word in words), told
    x = torch.as_tensor(np.asarray(a)).double()
    made = ran(one.code, x)
    torch.testing.assert_close(made, one.convert(x), rtol=0, atol=1e-12)
    return one, made


READINGS = {reading.words: reading for reading in _readings.READINGS}
PLAIN = [words for words, reading in READINGS.items() if not reading.euler]
EULER = [words for words, reading in READINGS.items() if reading.euler]


def written(words: str, matrix: Tensor) -> Tensor:
    reading = READINGS[words]
    numbers = reading.write(matrix)
    if numbers.shape[1:] != reading.shape:  # poses have translations, which are not looked at
        whole = torch.eye(4, dtype=matrix.dtype).repeat(len(matrix), 1, 1)
        whole[:, :3, :3] = numbers
        whole[:, :3, 3] = torch.arange(3.0)
        numbers = whole[:, : 4 if 4 in reading.shape[:1] or 16 in reading.shape else 3].reshape(
            -1, *reading.shape
        )
    return numbers


@pytest.mark.parametrize("words", READINGS)
def test_each_reading_is_told_beside_matrices(words):
    m = turns(30)
    one, made = assert_found(m, written(words, m), words)
    assert one.a == "matrices" and one.relation == ()
    apart = svdrot.geodesic_distance(READINGS[words].read(written(words, m)), m)
    assert apart.max() < 1e-7
    if len(READINGS[words].shape) == 1 and READINGS[words].shape[0] < 10:
        sign = torch.where((made * written(words, m)).sum(-1, keepdim=True) < 0, -1, 1)
        scale = sign if READINGS[words].shape == (4,) else 1
        torch.testing.assert_close(scale * made, written(words, m), rtol=0, atol=1e-7)


@pytest.mark.parametrize("words", PLAIN)
def test_each_reading_is_read(words):
    m = turns(30)
    _, made = assert_found(
        written(words, m), svdrot.matrix_to_quaternion(m.mT).roll(-1, -1), words, "transposed"
    )
    torch.testing.assert_close(svdrot.quaternion_to_matrix(made.roll(1, -1)), m.mT, rtol=0, atol=1e-9)


def test_changes_of_axes_on_either_side():
    m = turns(20)
    for p in range(0, 24, 3):
        for left, right in (
            (TURN[p], TURN[0]),
            (TURN[0], TURN[p]),
            (TURN[p], TURN[p].mT),
            (TURN[p], TURN[p - 5]),
        ):
            for inverse in (False, True):
                b = left @ (m.mT if inverse else m) @ right
                _, made = assert_found(m, b, *(["transposed"] if inverse else []))
                torch.testing.assert_close(made, b, rtol=0, atol=1e-12)


def test_frames_are_named():
    m = turns(20)
    p = change_of_axes("opencv", "opengl")
    assert_found(m, p @ m, "on the left", "(x, y, z) -> (x, -y, -z), as from opencv to opengl")
    assert_found(m, m @ p, "on the right", "(x, y, z) -> (x, -y, -z), as from opencv to opengl")
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    assert_found(
        m, mirror @ m @ mirror, "on both sides", "(x, y, z) -> (x, y, -z), left-handed against right"
    )
    assert_found(m @ mirror, m, "of determinant -1")


def test_pairs_of_euler_angles():
    m = turns(40)
    for first, second, degrees in (("XYZ", "zyx", False), ("ZXZ", "YXZ", True), ("zyx", "zyx", True)):
        a, b = svdrot.matrix_to_euler(m, first), svdrot.matrix_to_euler(m.mT, second)
        told = [first, second] if first == "XYZ" else []  # or both renamed
        one, made = assert_found(a.rad2deg() if degrees else a, b, *told, "transposed", "renamed alike")
        assert ("degrees" in one.a) == degrees
        torch.testing.assert_close(svdrot.euler_to_matrix(made, second), m.mT, rtol=0, atol=1e-9)


def test_others_write_them():
    rotation = Rotation.random(30, random_state=1)
    assert_found(rotation.as_matrix(), rotation.as_quat(), "x y z w")
    assert_found(
        rotation.as_rotvec(degrees=True), rotation.inv().as_euler("ZYX"), "degrees", "ZYX", "transposed"
    )
    unity = rotation.as_euler("zxy", degrees=True)[:, [1, 2, 0]]
    assert_found(rotation.as_quat(), unity, "YXZ (intrinsic) in degrees, stored as those about x, y, z")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("size", [0.0, 0.01, 0.1])
def test_noise_and_wrong_rows(share, size):
    m = turns(60)
    b = m.mT @ noise(60, size)
    wrong = int(share * 60)
    b[:wrong] = turns(wrong, seed=5)
    found = detect(m, svdrot.matrix_to_quaternion(b))
    assert found.verdict == "found" and "transposed" in found.conventions[0].relation[0]
    assert abs(found.conventions[0].agreeing - (60 - wrong)) <= 2
    if size:  # the root mean square of three errors
        assert 0.7 < found.conventions[0].angle / (size * 3**0.5) < 1.3


def test_a_few_decimals_are_enough():
    m = turns(10)
    assert_found(m.numpy().round(2), svdrot.matrix_to_quaternion(m).float().numpy().round(2), "w x y z")
    assert_found(m[0], svdrot.matrix_to_quaternion(m[0]).roll(-1, -1), "x y z w")  # one generic row, exact
    assert_found(m.float(), m.mT.float(), "transposed")


@pytest.mark.parametrize("on_left", [True, False])
def test_a_constant_rotation_is_the_last_resort(on_left):
    m, between = turns(40), turns(1, seed=7)[0]
    for size, inverse in ((0.0, False), (0.02, True)):
        start = m.mT if inverse else m
        b = (between @ start if on_left else start @ between) @ noise(40, size)
        b[:8] = turns(8, seed=11)
        side = f"a constant rotation on the {'left' if on_left else 'right'}"
        one, made = assert_found(
            m, svdrot.matrix_to_quaternion(b), side, *(["transposed"] if inverse else [])
        )
        apart = svdrot.geodesic_distance(svdrot.quaternion_to_matrix(made), b)
        assert apart[8:].median() < 2.5 * size + 1e-6 and one.agreeing >= 30


def test_an_offset_is_told_from_noise():
    m, tilt = turns(60), svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.05, 0.0], dtype=torch.float64))
    assert_found(m, tilt @ m @ noise(60, 0.01), "a constant rotation on the left, by 2.")
    one, _ = assert_found(m, m @ noise(60, 0.05))
    assert one.relation == ()


# What the rows leave open.


def about(axis: str, n: int = 30) -> Tensor:
    angles = torch.linspace(-3, 3, n, dtype=torch.float64) ** 3 / 9
    unit = torch.eye(3, dtype=torch.float64)["xyz".index(axis)]
    return svdrot.axis_angle_to_matrix(angles[:, None] * unit)


def test_turns_about_one_axis_are_ambiguous():
    found = detect(about("z"), svdrot.matrix_to_quaternion(about("z")))
    assert found.verdict == "ambiguous" and len(found.conventions) >= 8
    assert found.conventions[0].relation == ()  # the simplest first
    for one in found.conventions:  # each of them fits
        made = svdrot.quaternion_to_matrix(one.convert(about("z")))
        if one.b == "quaternions w x y z":
            assert svdrot.geodesic_distance(made, about("z")).max() < 1e-6
    assert str(found).startswith(f"ambiguous: {len(found.conventions)} agree with these rows")


def test_the_identity_and_a_single_half_turn_are_ambiguous():
    one = torch.eye(3, dtype=torch.float64)
    assert detect(one.expand(9, 3, 3), one.expand(9, 3, 3)).verdict == "ambiguous"
    half = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    assert detect(half, half).verdict == "ambiguous"


def test_small_rotations_are_ambiguous_if_noisy_and_found_if_exact():
    small = noise(20, 0.02, seed=3)
    assert detect(svdrot.matrix_to_euler(small, "XYZ"), small).verdict == "found"
    found = detect(svdrot.matrix_to_euler(small @ noise(20, 0.01), "XYZ"), small)
    assert found.verdict != "found", str(found)
    assert found.verdict == "none" or len({one.a for one in found.conventions}) > 3


# Nothing in common.


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 30])
def test_unrelated_rotations_have_no_convention(n):
    """In a dozen draws; the rate is promised to be below one in a thousand."""
    for seed in range(12):
        a, b = turns(n, seed=2 * seed), svdrot.matrix_to_quaternion(turns(n, seed=2 * seed + 1))
        found = detect(a, b)
        assert found.verdict == "none", (seed, str(found))


@pytest.mark.parametrize(("n", "size"), [(3, 1.0), (5, 60.0), (20, 1.0)])
def test_unrelated_numbers_have_no_convention(n, size):
    """Where most hypotheses are: three numbers with three."""
    generator = np.random.default_rng(n)
    found = detect(size * generator.normal(size=(n, 3)), generator.normal(size=(n, 3)))
    assert found.verdict == "none", str(found)


@pytest.mark.parametrize("n", [5, 40])
def test_unrelated_turns_about_one_axis_have_no_convention(n):
    for seed in range(8):
        angles = 6.28 * torch.rand(
            2, n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        a, b = svdrot.axis_angle_to_matrix(angles * torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
        found = detect(a, svdrot.matrix_to_quaternion(b))
        assert found.verdict == "none", (seed, str(found))


@pytest.mark.parametrize("n", [3, 6, 30])
def test_unrelated_small_rotations_have_no_convention(n):
    """They are near to each other, row by row or not: what rows that do not belong together say of chance."""
    for seed in range(6):
        a, b = noise(n, 0.05, seed=2 * seed), noise(n, 0.05, seed=2 * seed + 1)
        found = detect(a, svdrot.matrix_to_quaternion(b))
        assert found.verdict == "none", (seed, str(found))


def test_rows_at_rest_are_one_row():
    """Unrelated, each the same up to noise: many rows are no more evidence than one."""
    for seed in range(15):
        a, b = (
            turns(1, seed=seed) @ noise(200, 0.01),
            turns(1, seed=seed + 1000) @ noise(200, 0.01, seed=seed),
        )
        found = detect(a, b)
        assert found.verdict == "none", (seed, str(found))


def test_chance_is_as_often_as_it_is_said():
    """Agreements of a given quality among unrelated rows: at most as many as the bound, of 4,000 draws."""
    told = torch.tensor(
        [log_chance(turns(3, seed=2 * k), turns(3, seed=2 * k + 1), 1) for k in range(4000)]
    ).exp()
    for level in (0.3, 0.1, 0.03, 0.01):
        share = (told <= level).double().mean().item()
        assert share <= level + 3 * (level / 4000) ** 0.5
    assert (told <= 0.3).double().mean() > 0.01  # and it is no empty promise


def test_a_fitted_rotation_counts_for_what_it_takes():
    a, b = turns(9000, seed=1).reshape(1500, 6, 3, 3), turns(9000, seed=2).reshape(1500, 6, 3, 3)
    between = svdrot.averaging.average_rotations(b @ a.mT, norm="geodesic_l1")
    told = torch.tensor(
        [log_chance(r @ x, y, 1, fitted=True) for r, x, y in zip(between, a, b, strict=True)]
    ).exp()
    for level in (0.3, 0.1, 0.03, 0.01):
        assert (told <= level).double().mean().item() <= level + 3 * (level / 1500) ** 0.5


def test_rotations_that_are_half_a_radian_apart_are_not_the_same():
    """However many of them are nearer to each other than chance has it."""
    m = turns(200)
    found = detect(m, m @ noise(200, 0.5))
    assert found.verdict == "none" and found.chance < 1e-20 and found.nearest is not None
    assert found.nearest.relation == () and "leaves most rows more than 17 degrees apart" in str(found)


# Arguments.


def test_rows_that_are_not_finite_are_left_out():
    m = turns(20)
    b = svdrot.matrix_to_quaternion(m)
    b[3] = torch.nan
    found = detect(m, b)
    assert found.verdict == "found" and found.rows == 19
    assert detect(m.reshape(4, 5, 3, 3), b.reshape(4, 5, 4)).verdict == "found"


def test_what_cannot_be_read_is_named():
    with pytest.raises(ValueError, match=r"same batch shape.*got \(3, 3, 3\) and \(4, 4\)"):
        detect(turns(3), torch.zeros(4, 4))
    with pytest.raises(ValueError, match="with finite rows"):
        detect(torch.full((3, 3, 3), torch.nan), turns(3))
    with pytest.raises(ValueError, match="must be real numbers"):
        detect(torch.eye(3, dtype=torch.complex64), torch.eye(3))
    found = detect(torch.zeros(5, 3, 3), turns(5))
    assert found.verdict == "none"


def test_every_shape_is_searched_and_every_reading_has_a_name():
    assert {reading.shape for reading in _readings.READINGS} == {*_search.SHAPES}
    assert len(READINGS) == len(_readings.READINGS)
