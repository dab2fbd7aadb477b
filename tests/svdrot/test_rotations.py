"""Random rotations are Haar-uniform and reproducible; `is_rotation` tells rotations from all else."""

import math

import pytest
import torch
from rotation_cases import HARD
from scipy import stats

from svdrot.metrics import geodesic_distance
from svdrot.representations import matrix_to_axis_angle
from svdrot.rotations import is_rotation, random_rotation, random_rotation_within, random_small_rotation


def seeded(seed):
    return torch.Generator().manual_seed(seed)


HAAR_DRAWS = 20_000


def test_angles_have_the_density_of_haar_measure():
    """The angle to any fixed rotation has the distribution (theta - sin theta) / pi on [0, pi]."""
    rotation = random_rotation(HAAR_DRAWS, dtype=torch.float64, generator=seeded(0))
    for fixed in HARD["random"][:3]:  # invariance: the same law seen from anywhere
        angle = geodesic_distance(rotation, fixed).numpy()
        p = stats.kstest(angle, lambda t: (t - torch.tensor(t).sin().numpy()) / torch.pi).pvalue
        assert p > 1e-3  # one right generator in a thousand would fail; this seed does not


def test_moments_are_those_of_haar_measure():
    """E R = 0, and E R_ij R_kl = 1/3 if (i, j) = (k, l), else 0."""
    entries = random_rotation(HAAR_DRAWS, dtype=torch.float64, generator=seeded(1)).flatten(-2)
    five_sigma = 5 / HAAR_DRAWS**0.5  # entries and their products are within [-1, 1]
    assert entries.mean(0).abs().max() < five_sigma
    assert (entries.mT @ entries / HAAR_DRAWS - torch.eye(9) / 3).abs().max() < five_sigma


def test_a_generator_decides_every_draw():
    before = torch.get_rng_state()
    first = random_rotation(5, 2, generator=seeded(3))
    torch.manual_seed(99)  # the global generator has no part in it
    assert torch.equal(first, random_rotation(5, 2, generator=seeded(3)))
    assert not torch.equal(first, random_rotation(5, 2, generator=seeded(4)))
    torch.set_rng_state(before)
    random_rotation(5, 2, generator=seeded(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    first = random_rotation(5)
    torch.manual_seed(7)
    assert torch.equal(first, random_rotation(5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_draws_are_rotations_of_the_asked_shape_and_dtype(dtype):
    for shape in ((), (0,), (1000,), (2, 0, 3), (2, 3)):
        rotation = random_rotation(*shape, dtype=dtype, generator=seeded(5))
        assert rotation.shape == (*shape, 3, 3)
        assert rotation.dtype == dtype
        assert is_rotation(rotation).all()
        assert torch.equal(rotation, random_rotation(shape, dtype=dtype, generator=seeded(5)))


def test_the_default_dtype_is_torchs():
    assert random_rotation().dtype == torch.get_default_dtype()
    with pytest.raises(TypeError, match=r"`dtype` must be floating point; got torch\.int64"):
        random_rotation(2, dtype=torch.int64)


DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", HARD)
def test_rotations_rounded_to_a_dtype_are_rotations(case, dtype):
    rotation = HARD[case].to(dtype)
    assert is_rotation(rotation).all()
    assert not is_rotation(-rotation).any()  # orthogonal, det = -1
    assert not is_rotation(rotation * (1 + 16 * torch.finfo(dtype).eps)).any()  # 32 eps on the diagonal


def test_other_matrices_are_not():
    eye = torch.eye(3)
    nan, inf = eye.clone(), eye.clone()
    nan[0, 1], inf[2, 2] = float("nan"), float("inf")
    batch = torch.stack((eye, nan, inf, 0 * eye, 2 * eye, eye[[1, 0, 2]], torch.ones(3, 3), eye[[1, 2, 0]]))
    expected = [True, False, False, False, False, False, False, True]
    assert is_rotation(batch).tolist() == expected
    assert is_rotation(batch.unflatten(0, (2, 4))).tolist() == [expected[:4], expected[4:]]
    assert torch.func.vmap(is_rotation)(batch).tolist() == expected


def test_tolerance_is_the_largest_entry_of_the_defect():
    sheared = torch.eye(3, dtype=torch.float64)
    sheared[0, 1] = 1e-3
    assert is_rotation(sheared, tolerance=1.1e-3)
    assert not is_rotation(sheared, tolerance=0.9e-3)
    assert not is_rotation(torch.diag(torch.tensor([1.0, 1.0, -1.0])), tolerance=10.0)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`matrix` must have shape \(\.\.\., 3, 3\); got \(3,\)"):
        is_rotation(torch.zeros(3))
    with pytest.raises(TypeError, match="`matrix` must be floating point"):
        is_rotation(torch.eye(3, dtype=torch.long))
    for shape in ((2.0,), ("a",), ((2, 3), 4)):
        with pytest.raises(TypeError, match="`shape` must be whole numbers, or one tuple of them; got"):
            random_rotation(*shape)


@pytest.mark.parametrize("angle", [1e-6, 1e-2, 1.0, 3.0, torch.pi])
def test_draws_within_an_angle_are_uniform_there(angle):
    """The angle has the distribution (theta - sin theta) / (alpha - sin alpha); the axis is uniform."""
    rotation = random_rotation_within(HAAR_DRAWS, angle=angle, dtype=torch.float64, generator=seeded(6))
    theta = geodesic_distance(rotation, torch.eye(3, dtype=torch.float64))
    assert theta.max() <= angle * (1 + 1e-12)

    def distribution(t):
        t = torch.as_tensor(t)
        exact = torch.where(t < 1e-2, t**3 / 6 * (1 - t**2 / 20), t - t.sin())
        whole = angle**3 / 6 * (1 - angle**2 / 20) if angle < 1e-1 else angle - math.sin(angle)
        return (exact / whole).numpy()

    assert stats.kstest(theta.numpy(), distribution).pvalue > 1e-3
    axis = matrix_to_axis_angle(rotation) / theta[:, None]
    assert axis.mean(0).abs().max() < 5 / (3 * HAAR_DRAWS) ** 0.5
    single = random_rotation_within(100, angle=angle, generator=seeded(6))
    assert is_rotation(single).all()


def test_half_turns_and_nothing_are_the_ends_of_an_angle():
    assert torch.equal(random_rotation_within(4, angle=0.0), torch.eye(3).expand(4, 3, 3))
    with pytest.raises(ValueError, match=r"`angle` must be in \[0, pi\]; got 3\.2"):
        random_rotation_within(4, angle=3.2)


def test_small_rotations_are_normal_in_their_vectors():
    scale = torch.tensor([1e-3, 0.1], dtype=torch.float64, requires_grad=True)
    rotation = random_small_rotation(HAAR_DRAWS, 2, scale=scale, dtype=torch.float64, generator=seeded(7))
    vector = matrix_to_axis_angle(rotation) / scale[:, None]
    for k in range(2):
        for axis in range(3):
            assert stats.kstest(vector[:, k, axis].detach().numpy(), "norm").pvalue > 1e-3
    (gradient,) = torch.autograd.grad(geodesic_distance(rotation, torch.eye(3).double()).mean(0).sum(), scale)
    five_sigma = 5 * 0.68 / HAAR_DRAWS**0.5  # of the length of a normal vector
    assert (gradient - (8 / math.pi) ** 0.5).abs().max() < five_sigma
    same = random_small_rotation(HAAR_DRAWS, 2, scale=scale, dtype=torch.float64, generator=seeded(7))
    assert torch.equal(same, rotation)
    assert random_small_rotation(scale=0.1).shape == (3, 3)
    assert random_small_rotation(3, scale=0.1, dtype=torch.float16).dtype == torch.float16


def test_a_scale_larger_than_the_shape_is_refused():
    for shape, scale in (((), torch.ones(3)), ((2,), torch.ones(3, 1)), ((2,), torch.ones(3))):
        with pytest.raises(ValueError, match=r"`scale`"):
            random_small_rotation(*shape, scale=scale)
