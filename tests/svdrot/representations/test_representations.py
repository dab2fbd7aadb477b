"""Maps between representations: round trips, independent references, derivatives at the singular spots."""

import pickle
from functools import partial
from itertools import permutations, product

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from rotation_cases import FIXTURES, HARD
from scipy.spatial.transform import Rotation

import svdrot
from svdrot import representations as rep
from svdrot.engine import operations
from svdrot.metrics import geodesic_distance
from svdrot.representations import _convert
from svdrot.representations._named import KINDS
from svdrot.rotations import is_rotation

SEQUENCES = ["".join(s) for axes in ("xyz", "XYZ") for s in product(axes, repeat=3) if s[0] != s[1] != s[2]]
NAMES = ["matrix", "quaternion", "axis_angle", "mrp", "2vec", "5d", "6d", "9d", "10d"]
NAMES += [f"euler_{sequence}" for sequence in SEQUENCES]
PYTORCH3D = np.load(FIXTURES / "pytorch3d_0.7.9.npz")

FROM_MATRIX = {
    "6d": rep.matrix_to_rotation_6d,
    "quaternion": rep.matrix_to_quaternion,
    "axis_angle": rep.matrix_to_axis_angle,
    "mrp": rep.matrix_to_mrp,
    "2vec": rep.matrix_to_rotation_2vec,
    "5d": rep.matrix_to_rotation_5d,
    "9d": rep.matrix_to_rotation_9d,
    "10d": rep.matrix_to_symmetric_10d,
    "euler_XYZ": partial(rep.matrix_to_euler, sequence="XYZ"),
    "euler_zxz": partial(rep.matrix_to_euler, sequence="zxz"),
}
TO_MATRIX = {
    "6d": rep.rotation_6d_to_matrix,
    "quaternion": rep.quaternion_to_matrix,
    "axis_angle": rep.axis_angle_to_matrix,
    "mrp": rep.mrp_to_matrix,
    "2vec": rep.rotation_2vec_to_matrix,
    "5d": rep.rotation_5d_to_matrix,
    "9d": rep.rotation_9d_to_matrix,
    "10d": rep.symmetric_10d_to_matrix,
    "euler_XYZ": partial(rep.euler_to_matrix, sequence="XYZ"),
    "euler_zxz": partial(rep.euler_to_matrix, sequence="zxz"),
}
# Between numbers that are no matrices: the maps that need none.
DIRECT = {
    ("axis_angle", "quaternion"): rep.axis_angle_to_quaternion,
    ("mrp", "quaternion"): rep.mrp_to_quaternion,
    ("euler_XYZ", "quaternion"): partial(rep.euler_to_quaternion, sequence="XYZ"),
    ("euler_zxz", "quaternion"): partial(rep.euler_to_quaternion, sequence="zxz"),
    ("axis_angle", "mrp"): partial(rep.convert_rotation, source="axis_angle", target="mrp"),
    ("quaternion", "axis_angle"): rep.quaternion_to_axis_angle,
    ("quaternion", "mrp"): rep.quaternion_to_mrp,
    ("quaternion", "euler_XYZ"): partial(rep.quaternion_to_euler, sequence="XYZ"),
    ("quaternion", "euler_zxz"): partial(rep.quaternion_to_euler, sequence="zxz"),
}
NUMBERS = {"quaternion": 4, "axis_angle": 3, "mrp": 3, "euler_XYZ": 3, "euler_zxz": 3}
NUMBERS |= {"2vec": 6, "5d": 5, "6d": 6, "9d": 9, "10d": 10}

# One map is right to 6 eps at worst over the cases (entries of matrices, unit quaternions, radians): 10 eps.
ONE_MAP = {torch.float32: 1.2e-6, torch.float64: 2.3e-15}
# Four maps in a row: their sum.
ROUND_TRIP = {torch.float32: 4.8e-6, torch.float64: 9e-15}
# Results rounded to the dtype they came in: half a unit in the last place, and as much to spare.
HALF = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def raw(name, batch=32, dtype=torch.float64, seed=0):
    return torch.randn(batch, NUMBERS[name], dtype=dtype, generator=torch.Generator().manual_seed(seed))


def largest(difference):
    return difference.abs().max().item()


@pytest.mark.parametrize("dtype", ROUND_TRIP, ids=str)
@pytest.mark.parametrize("case", HARD)
def test_every_pair_of_representations_round_trips(case, dtype):
    matrix = HARD[case].to(dtype)
    for first, second in product(FROM_MATRIX, repeat=2):
        middle = TO_MATRIX[first](FROM_MATRIX[first](matrix))
        back = TO_MATRIX[second](FROM_MATRIX[second](middle))
        assert largest(back - matrix) < ROUND_TRIP[dtype], (first, second)


@pytest.mark.parametrize("dtype", ROUND_TRIP, ids=str)
@pytest.mark.parametrize("name", TO_MATRIX)
def test_raw_numbers_give_rotations_at_any_scale(name, dtype):
    for scale in (1e-30, 1e-20, 1e-3, 1, 1e15, 1e30):
        if scale > 1 and ("euler" in name or name == "axis_angle"):
            continue  # an angle of 1e15 rad is not a direction
        assert is_rotation(TO_MATRIX[name](scale * raw(name, 1000, dtype))).all(), scale


@pytest.mark.parametrize("name", ["quaternion", "2vec", "6d", "9d", "10d"])
def test_only_the_direction_of_raw_numbers_matters(name):
    x = raw(name, dtype=torch.float32)
    for scale in (2.0**-100, 2.0**-60, 2.0**60, 2.0**100):  # powers of two: scaling itself does not round
        assert largest(TO_MATRIX[name](scale * x) - TO_MATRIX[name](x)) < ONE_MAP[torch.float32], scale


@pytest.mark.parametrize("dtype", ONE_MAP, ids=str)
@pytest.mark.parametrize("case", HARD)
def test_quaternions_and_rotation_vectors_agree_with_scipy(case, dtype):
    matrix = HARD[case].to(dtype)
    truth = Rotation.from_matrix(matrix.double().numpy())

    quaternion = rep.matrix_to_quaternion(matrix).double()
    assert (quaternion[..., 0] >= 0).all()
    expected = torch.from_numpy(truth.as_quat()).roll(1, -1)  # scipy's w stands last
    expected = torch.where((quaternion * expected).sum(-1, keepdim=True) < 0, -expected, expected)
    assert largest(quaternion - expected) < ONE_MAP[dtype]

    vector = rep.matrix_to_axis_angle(matrix).double()
    expected = torch.from_numpy(truth.as_rotvec())
    expected = torch.where((vector * expected).sum(-1, keepdim=True) < 0, -expected, expected)
    assert largest(vector - expected) < 2 * ONE_MAP[dtype]
    assert (vector.norm(dim=-1) <= torch.pi + ONE_MAP[dtype]).all()

    exact = torch.from_numpy(Rotation.from_rotvec(vector.numpy()).as_matrix())
    assert largest(rep.axis_angle_to_matrix(vector.to(dtype)) - exact) < ONE_MAP[dtype]


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_euler_angles_agree_with_scipy(sequence):
    matrix = HARD["random"]
    angles = rep.matrix_to_euler(matrix, sequence)
    expected = torch.from_numpy(Rotation.from_matrix(matrix.numpy()).as_euler(sequence))
    away = rep.euler_to_matrix(expected, sequence)
    assert largest(away - matrix) < ROUND_TRIP[torch.float64]
    # Rounding is divided by the distance from gimbal lock, which is above 0.01 for these draws.
    assert largest(angles - expected) < 100 * ONE_MAP[torch.float64]


@pytest.mark.parametrize("dtype", ONE_MAP, ids=str)
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_euler_angles_reconstruct_everywhere(sequence, dtype):
    matrix = torch.cat([m.to(dtype) for m in HARD.values()])
    angles = rep.matrix_to_euler(matrix, sequence)
    assert largest(rep.euler_to_matrix(angles, sequence) - matrix) < ONE_MAP[dtype]
    assert (angles.abs() <= torch.pi + ONE_MAP[dtype]).all()
    if sequence[0] == sequence[2]:
        assert (angles[:, 1] >= 0).all()
    else:
        assert (angles[:, 1].abs() <= torch.pi / 2 + ONE_MAP[dtype]).all()


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_gimbal_lock_sets_the_third_angle_to_zero(sequence):
    ends = (0, torch.pi) if sequence[0] == sequence[2] else (-torch.pi / 2, torch.pi / 2)
    for middle in ends:
        matrix = rep.euler_to_matrix(torch.tensor([0.4, middle, 0.3], dtype=torch.float64), sequence)
        matrix.requires_grad_()
        angles = rep.matrix_to_euler(matrix, sequence)
        assert angles[2] == 0
        assert largest(rep.euler_to_matrix(angles, sequence) - matrix) < ONE_MAP[torch.float64]
        (gradient,) = torch.autograd.grad(angles.sum(), matrix)
        assert largest(gradient) < 10


def test_agreement_with_roma():
    matrix = HARD["random"]
    xyzw = roma.rotmat_to_unitquat(matrix)
    wxyz = roma.quat_xyzw_to_wxyz(xyzw)
    wxyz = torch.where(wxyz[:, :1] < 0, -wxyz, wxyz)
    assert largest(rep.matrix_to_quaternion(matrix) - wxyz) < ONE_MAP[torch.float64]
    assert largest(rep.matrix_to_axis_angle(matrix) - roma.rotmat_to_rotvec(matrix)) < 1e-14
    six = raw("6d")
    assert largest(rep.rotation_6d_to_matrix(six) - roma.special_gramschmidt(six.view(-1, 2, 3).mT)) < 1e-14
    angles = raw("euler_XYZ")
    for sequence in ("XYZ", "zxz"):
        expected = roma.euler_to_rotmat(sequence, angles.unbind(-1))
        assert largest(rep.euler_to_matrix(angles, sequence) - expected) < ONE_MAP[torch.float64]


def test_agreement_with_pytorch3d():
    def fixture(key):
        return torch.from_numpy(PYTORCH3D[key])

    quaternion, matrix = fixture("quaternion_wxyz"), fixture("matrix")
    assert largest(rep.quaternion_to_matrix(quaternion) - matrix) < ONE_MAP[torch.float64]
    theirs = fixture("standardize_quaternion")
    ours = rep.matrix_to_quaternion(matrix)
    ours = torch.where((ours * theirs).sum(-1, keepdim=True) < 0, -ours, ours)
    assert largest(ours - theirs) < 3 * ONE_MAP[torch.float64]  # theirs are not all of unit length
    # Their 6d is the first two rows.
    transposed = rep.rotation_6d_to_matrix(fixture("rotation_6d_in"))
    assert largest(transposed - fixture("rotation_6d_to_matrix").mT) < 1e-14
    assert largest(rep.matrix_to_rotation_6d(matrix.mT) - fixture("matrix_to_rotation_6d")) == 0
    assert largest(rep.axis_angle_to_matrix(fixture("so3_exp_in")) - fixture("so3_exp")) < 1e-14
    for sequence in ("XYZ", "ZYX", "ZXZ", "YXY"):
        ours = rep.euler_to_matrix(fixture(f"euler_in_{sequence}"), sequence)
        assert largest(ours - fixture(f"euler_to_matrix_{sequence}")) < ONE_MAP[torch.float64]


def symmetric_matrix(ten):
    row, column = torch.triu_indices(4, 4)
    matrix = ten.new_zeros(*ten.shape[:-1], 4, 4)
    matrix[..., row, column] = ten
    matrix[..., column, row] = ten
    return matrix


def test_10d_is_the_smallest_eigenvector():
    ten = raw("10d", 200)
    values, vectors = torch.linalg.eigh(symmetric_matrix(ten))
    angle = geodesic_distance(rep.symmetric_10d_to_matrix(ten), rep.quaternion_to_matrix(vectors[..., 0]))
    gap = values[:, 1] - values[:, 0]
    # Both are backward stable: a rounding of the matrix turns the eigenvector by |A| / gap times as much.
    assert (angle * gap / values.abs().amax(-1)).max() < 100 * torch.finfo(torch.float64).eps

    row, column = torch.triu_indices(4, 4)
    shifted = rep.symmetric_10d_to_matrix(ten + 3 * (row == column))
    assert ((geodesic_distance(shifted, rep.symmetric_10d_to_matrix(ten))) * gap).max() < 1e-13
    xyzw = symmetric_matrix(ten)[:, [1, 2, 3, 0]][:, :, [1, 2, 3, 0]][:, row, column]
    theirs = roma.unitquat_to_rotmat(roma.symmatrixvec_to_unitquat(xyzw))
    assert (geodesic_distance(theirs, rep.symmetric_10d_to_matrix(ten)) * gap).max() < 1e-12


@pytest.mark.parametrize("dtype", ONE_MAP, ids=str)
def test_6d_keeps_the_first_direction_and_the_plane(dtype):
    six = raw("6d", 1000)
    six[500:, 3:] = six[500:, :3] + 1e-3 * six[500:, 3:]  # nearly collinear
    six = six.to(dtype)
    matrix = rep.rotation_6d_to_matrix(six).double()
    first, second = six.double().unflatten(-1, (2, 3)).unbind(-2)
    components = (matrix.mT @ torch.stack((first, second), -1)) / torch.stack((first, second), -1).norm(
        dim=-2, keepdim=True
    )
    assert largest(components[:, 0, 0] - 1) < ONE_MAP[dtype]
    assert largest(components[:, 1:, 0]) < ONE_MAP[dtype]
    assert (components[:, 1, 1] > 0).all()
    assert largest(components[:, 2, 1]) < ONE_MAP[dtype]


SCIPY_READS = {
    "matrix": Rotation.from_matrix,
    "quaternion": lambda wxyz: Rotation.from_quat(np.roll(wxyz, -1, -1)),
    "axis_angle": Rotation.from_rotvec,
    "mrp": Rotation.from_mrp,
} | {f"euler_{sequence}": partial(Rotation.from_euler, sequence) for sequence in SEQUENCES}
EVERY_CASE = torch.cat(list(HARD.values()))
# From a place in `NAMES` to those of its partners, in float64 and float32: near ones and far ones, so that
# Euler angles meet those of the same kind, of the other, and the representations without sequences.
STEPS = ((0, 5, 12, 22), (1, 9, 17, 28))


def by_operations(value, source, target):
    """A conversion as torch operations: of its whole formula, without the compilation of its own kernel."""
    program = getattr(_convert._MAPS, _convert._made(source, target)).program
    return operations.run(program.name, (), (value,), (value.dtype, value.dtype))[0]


@pytest.mark.parametrize("dtype", ROUND_TRIP, ids=str)
def test_every_pair_of_representations_agrees_with_scipy(dtype):
    """What scipy reads on both sides of a conversion is the same rotation; 9D and the like are read by us.

    Every pair by its formula, as operations. By its kernel, which takes a tenth of a second, a share of them:
    in either dtype every representation is read four times and written four times, and every pair without
    Euler angles is taken in one of them. Kernels of two pairs of sequences differ in signs and in order.
    """

    def truth(value, name):
        read = SCIPY_READS.get(name)
        if read is None:
            return rep.convert_rotation(value.double(), name, "matrix")
        return torch.from_numpy(read(value.double().numpy()).as_matrix())

    matrix, parity = EVERY_CASE.to(dtype), int(dtype == torch.float32)
    few = sum(not name.startswith("euler") for name in NAMES)
    for i, source in enumerate(NAMES):
        value = rep.convert_rotation(matrix, "matrix", source)
        before = truth(value, source)
        for j, target in enumerate(NAMES):
            takes_part = (j - i) % len(NAMES) in STEPS[parity]
            takes_part |= max(i, j) < few and (i + j) % 2 == parity
            for convert in (by_operations, rep.convert_rotation) if takes_part else (by_operations,):
                after = truth(convert(value, source, target), target)
                assert largest(after - before) < ROUND_TRIP[dtype], (source, target, convert)


@pytest.mark.parametrize("dtype", ROUND_TRIP, ids=str)
def test_a_walk_over_every_pair_comes_back(dtype):
    """A closed walk through all ordered pairs: the same rotation after each of its steps, up to their sum."""
    value = matrix = EVERY_CASE[::7].to(dtype)
    here, steps = "matrix", 0
    for shift in range(1, len(NAMES)):
        for start in range(len(NAMES)):  # for each start the pair (start, start + shift), by way of `start`
            source, target = NAMES[start], NAMES[(start + shift) % len(NAMES)]
            value = by_operations(by_operations(value, here, source), source, target)
            here, steps = target, steps + 2
            if steps % 50 == 0:
                drift = largest(by_operations(value, here, "matrix") - matrix)
                # Roundings of random sign add up as the root of their number.
                assert drift < ROUND_TRIP[dtype] * (1 + steps) ** 0.5, (source, target, steps)
    assert steps == 2 * len(NAMES) * (len(NAMES) - 1)


def test_conversion_keeps_float32_until_the_end_and_its_argument_is_checked():
    half = raw("axis_angle").half()
    expected = rep.convert_rotation(half.float(), "axis_angle", "6d").half()
    assert torch.equal(rep.convert_rotation(half, "axis_angle", "6d"), expected)
    with pytest.raises(ValueError, match=r"`source` must be one of 'matrix', .*got 'euler_XXY'"):
        rep.convert_rotation(half, "euler_XXY", "6d")
    with pytest.raises(ValueError, match=r"`target` must be one of 'matrix', .*got 'quat'"):
        rep.convert_rotation(half, "axis_angle", "quat")
    with pytest.raises(ValueError, match=r"`value` must have shape \(\.\.\., 4\); got \(32, 3\)"):
        rep.convert_rotation(half, "quaternion", "6d")


def test_every_pair_has_a_function_of_its_name():
    kinds = {kind: name.format("ZYX") for kind, (name, _) in KINDS.items()}
    assert set(kinds.values()) == {name for name in NAMES if "euler" not in name} | {"euler_ZYX"}
    for (source, start), (target, end) in permutations(kinds.items(), 2):
        function = getattr(rep, f"{source}_to_{target}")
        assert function is getattr(svdrot, f"{source}_to_{target}")
        assert pickle.loads(pickle.dumps(function)) is function
        assert function.__name__ == f"{source}_to_{target}" and function.__doc__
        value = rep.convert_rotation(EVERY_CASE[::11], "matrix", start)
        sequence = ("ZYX",) if "euler" in (source, target) else ()
        expected = rep.convert_rotation(value, start, end)
        assert largest(function(value, *sequence) - expected) < 16 * ONE_MAP[torch.float64], (source, target)
    with pytest.raises(ValueError, match=r"`sequence` must be three axes, .*got 'XXY'"):
        rep.rotation_6d_to_euler(torch.randn(2, 6), "XXY")
    with pytest.raises(AttributeError, match="rotation_7d_to_matrix'; it has X_to_Y of matrix, "):
        _ = svdrot.rotation_7d_to_matrix


def test_conversion_to_itself_normalizes():
    quaternion = raw("quaternion")
    same = rep.convert_rotation(quaternion, "quaternion", "quaternion")
    assert largest(same - quaternion / quaternion.norm(dim=-1, keepdim=True)) < ONE_MAP[torch.float64]
    full_turn_more = torch.tensor([[0.0, 0.0, 1.0 + 2 * torch.pi]], dtype=torch.float64)
    shorter = rep.convert_rotation(full_turn_more, "axis_angle", "axis_angle")
    assert largest(shorter - torch.tensor([[0.0, 0.0, 1.0]])) < 4 * ONE_MAP[torch.float64]


NEAR = [10.0**-n for n in range(7, 2, -1)]
ENDS = {"zero": NEAR, "half_turn": [torch.pi - angle for angle in NEAR] + [torch.pi]}


def exact_vectors(end):
    """Rotation vectors in float32 and, to 50 digits, their half angle and axis."""
    axes = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    axes = torch.cat((axes / axes.norm(dim=-1, keepdim=True), torch.eye(3, dtype=torch.float64)))
    vectors = (torch.tensor(ENDS[end], dtype=torch.float64)[:, None, None] * axes).flatten(0, 1).float()
    halves, directions = [], []
    for vector in vectors.double().tolist():
        length = mp.sqrt(sum(mp.mpf(x) ** 2 for x in vector))
        halves.append(length / 2)
        directions.append([mp.mpf(x) / length for x in vector])
    return vectors, halves, directions


@pytest.mark.parametrize("end", ENDS)
def test_float32_is_right_to_rounding_beside_50_digits_near_zero_and_half_turns(end):
    with mp.workdps(50):
        vectors, halves, directions = exact_vectors(end)
        turns = list(zip(halves, directions, strict=True))
        quaternions = [[mp.cos(half), *(mp.sin(half) * x for x in axis)] for half, axis in turns]
        mrps = [[mp.tan(half / 2) * x for x in axis] for half, axis in turns]
        quaternion, mrp = (torch.tensor([[float(x) for x in row] for row in t]) for t in (quaternions, mrps))

    def error(ours, truth):
        # Against the largest entry: a small vector has all its digits.
        truth = truth.double()
        ours = torch.where((ours * truth).sum(-1, keepdim=True) < 0, -ours.double(), ours.double())
        return ((ours - truth).abs().amax(-1) / truth.abs().amax(-1)).max()

    eps = torch.finfo(torch.float32).eps
    double = quaternion.double(), mrp.double()
    # The inputs are the truth rounded: a unit in the last place of each, and three operations.
    assert error(rep.axis_angle_to_quaternion(vectors), double[0]) < 4 * eps
    assert error(rep.axis_angle_to_quaternion(vectors)[:, 1:], double[0][:, 1:]) < 4 * eps
    assert error(rep.mrp_to_quaternion(mrp)[:, 1:], double[0][:, 1:]) < 4 * eps
    assert error(rep.quaternion_to_axis_angle(quaternion), vectors) < 4 * eps
    assert error(rep.quaternion_to_mrp(quaternion), double[1]) < 4 * eps
    for source, target, value, truth in (
        ("axis_angle", "mrp", vectors, double[1]),
        ("mrp", "axis_angle", mrp, vectors),
    ):
        assert error(rep.convert_rotation(value, source, target), truth) < 6 * eps, (source, target)
    matrix = rep.axis_angle_to_matrix(vectors)
    assert error(rep.matrix_to_axis_angle(matrix), vectors) < 6 * eps
    assert error(rep.matrix_to_mrp(matrix), double[1]) < 6 * eps


def test_between_vectors_a_half_turn_keeps_the_sign_of_its_axis():
    axes = raw("mrp") / raw("mrp").norm(dim=-1, keepdim=True)
    half_turn = torch.cat((torch.zeros(len(axes), 1), axes), -1)
    assert largest(rep.quaternion_to_axis_angle(half_turn) - torch.pi * axes) < ONE_MAP[torch.float64]
    assert largest(rep.quaternion_to_mrp(half_turn) - axes) < ONE_MAP[torch.float64]
    short = torch.pi * (1 - 1e-12) * axes
    assert (rep.convert_rotation(short, "axis_angle", "mrp") * axes).sum(-1).min() > 0.999


def test_derivatives_at_the_identity_are_those_of_the_formulas():
    eye, zero = torch.eye(3), torch.zeros(3)
    quarter = partial(rep.convert_rotation, source="axis_angle", target="mrp")
    assert torch.equal(torch.func.jacrev(quarter)(zero), eye / 4)
    assert torch.equal(torch.func.jacrev(rep.axis_angle_to_quaternion)(zero)[1:], eye / 2)
    assert torch.equal(torch.func.jacrev(rep.quaternion_to_axis_angle)(torch.eye(4)[0])[:, 1:], 2 * eye)
    assert torch.equal(torch.func.jacrev(rep.mrp_to_quaternion)(zero)[1:], 2 * eye)


@pytest.mark.parametrize("names", DIRECT, ids="_to_".join)
def test_derivatives_of_direct_maps(names):
    x = raw(names[0], 3)
    if names[0] in ("axis_angle", "mrp"):
        x = torch.cat((x, 1e-3 * x, 1e-9 * x, 0 * x[:1], x / x.norm(dim=-1, keepdim=True)))
    if names == ("quaternion", "axis_angle"):
        x = torch.cat((x, torch.tensor([[-2.0, 0, 0, 0], [1, 1e-9, 0, 0], [1e-3, 0.6, 0.8, 0]])))
    x.requires_grad_()
    assert torch.autograd.gradcheck(DIRECT[names], x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(DIRECT[names], x)


@pytest.mark.parametrize("target", ["axis_angle", "mrp"])
def test_derivatives_at_a_half_turn_are_those_beside_it(target):
    """The vector jumps to its negative there; its derivative loses no digit on either side."""
    to_target = DIRECT["quaternion", target]
    axis = [0.48, 0.6, 0.64]
    for dtype in ONE_MAP:
        at, above, below = (torch.tensor([w, *axis], dtype=dtype) for w in (0.0, 1e-10, -1e-10))
        jacobian = torch.func.jacrev(to_target)
        assert largest(jacobian(at) - jacobian(above)) < 1e-8 + ONE_MAP[dtype]
        odd = torch.tensor([1, -1, -1, -1])  # along w both sides go to the same place
        assert largest(jacobian(at) - jacobian(below) * odd) < 1e-8 + ONE_MAP[dtype]


def test_zero_quaternion_is_the_identity_with_zero_gradient():
    for target in ("axis_angle", "mrp"):
        assert not DIRECT["quaternion", target](torch.zeros(4)).any()
        assert not torch.func.jacrev(DIRECT["quaternion", target])(torch.zeros(4)).any()


@pytest.mark.parametrize("dtype", ONE_MAP, ids=str)
def test_modified_rodrigues_parameters_are_in_the_unit_ball_and_scipys(dtype):
    matrix = EVERY_CASE.to(dtype)
    mrp = rep.matrix_to_mrp(matrix)
    assert mrp.norm(dim=-1).max() <= 1 + ONE_MAP[dtype]
    expected = torch.from_numpy(Rotation.from_matrix(matrix.double().numpy()).as_mrp())
    expected = torch.where((mrp * expected).sum(-1, keepdim=True) < 0, -expected, expected)
    assert largest(mrp - expected) < ONE_MAP[dtype]
    p = raw("mrp", 1000, dtype)
    shadow = -p / p.square().sum(-1, keepdim=True)
    assert largest(rep.mrp_to_matrix(p) - rep.mrp_to_matrix(shadow)) < 3 * ONE_MAP[dtype]
    assert largest(rep.mrp_to_quaternion(p) + rep.mrp_to_quaternion(shadow)) < 3 * ONE_MAP[dtype]


@pytest.mark.parametrize("dtype", ONE_MAP, ids=str)
def test_2vec_turns_both_directions_alike_within_their_plane(dtype):
    vectors = raw("2vec", 1000)
    vectors[300:600, 3:] = vectors[300:600, :3] + 1e-3 * vectors[300:600, 3:]  # nearly parallel
    vectors[600:, 3:] = -vectors[600:, :3] + 1e-3 * vectors[600:, 3:]  # nearly opposite
    vectors = vectors.to(dtype)
    x, y, z = rep.rotation_2vec_to_matrix(vectors).double().unbind(-1)
    first, second = vectors.double().unflatten(-1, (2, 3)).unbind(-2)
    first, second = first / first.norm(dim=-1, keepdim=True), second / second.norm(dim=-1, keepdim=True)
    assert largest((first * z).sum(-1)) < ONE_MAP[dtype]
    assert largest((second * z).sum(-1)) < ONE_MAP[dtype]
    assert largest((x * first).sum(-1) - (y * second).sum(-1)) < ONE_MAP[dtype]
    assert ((x * second).sum(-1) - (y * first).sum(-1)).abs().max() < ONE_MAP[dtype]
    assert (torch.linalg.cross(first, second) * z).sum(-1).min() > 0


def test_2vec_is_the_frame_nearest_to_its_two_directions():
    x = raw("2vec", 50)
    first, second = (v / v.norm(dim=-1, keepdim=True) for v in x.unflatten(-1, (2, 3)).unbind(-2))
    matrix = rep.rotation_2vec_to_matrix(x)
    nearest = (matrix[..., 0] * first + matrix[..., 1] * second).sum(-1)
    other = HARD["random"][:, None] @ matrix
    other = torch.cat((other, rep.axis_angle_to_matrix(1e-3 * raw("axis_angle", 64))[:, None] @ matrix))
    assert ((other[..., 0] * first + other[..., 1] * second).sum(-1) <= nearest + 1e-14).all()


def test_5d_is_the_stereographic_projection_of_6d():
    matrix = EVERY_CASE
    six = rep.matrix_to_rotation_6d(matrix)
    v = six[:, 2:] / six[:, 2:].norm(dim=-1, keepdim=True)
    expected = torch.cat((six[:, :2], v[:, 1:] / (1 - v[:, :1])), -1)
    assert largest(rep.matrix_to_rotation_5d(matrix) - expected) < 10 * ONE_MAP[torch.float64]
    five = raw("5d")
    u = five[:, 2:].norm(dim=-1, keepdim=True)
    six = torch.cat((five[:, :2], (u - 1 / u) / 2, five[:, 2:] / u), -1)
    difference = rep.rotation_5d_to_matrix(five) - rep.rotation_6d_to_matrix(six)
    assert largest(difference) < 10 * ONE_MAP[torch.float64]


def test_10d_of_a_rotation_is_its_projector():
    quaternion = rep.matrix_to_quaternion(HARD["random"])
    matrix = symmetric_matrix(rep.matrix_to_symmetric_10d(HARD["random"]))
    expected = torch.eye(4) - quaternion[:, :, None] * quaternion[:, None]
    assert largest(matrix - expected) < ONE_MAP[torch.float64]


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_euler_quaternions_are_those_of_the_matrices_and_smooth(sequence):
    angles = torch.cat((raw("euler_XYZ"), 4 * raw("euler_XYZ", seed=1), torch.zeros(1, 3)))
    quaternion = rep.euler_to_quaternion(angles, sequence)
    expected = rep.euler_to_matrix(angles, sequence)
    assert largest(rep.quaternion_to_matrix(quaternion) - expected) < ROUND_TRIP[torch.float64]
    turned = angles + torch.tensor([2 * torch.pi, 0, 0], dtype=torch.float64)
    assert largest(rep.euler_to_quaternion(turned, sequence) + quaternion) < ROUND_TRIP[torch.float64]


LOW, HIGH = 2.0**-100, 2.0**100  # 1e-30 to 1e30
magnitude = st.floats(LOW, HIGH, width=32) | st.floats(-HIGH, -LOW, width=32)
entry = magnitude | st.sampled_from([0.0, 1.0, -1.0, LOW, HIGH])
vector = st.tuples(entry, entry, entry)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    first=st.tuples(entry, entry, entry), second=st.tuples(entry, entry, entry), along=st.none() | magnitude
)
def test_6d_is_a_rotation_with_a_finite_gradient_whatever_the_numbers(first, second, along):
    first = torch.tensor(first)
    second = torch.tensor(second) if along is None else (first / first.abs().max().clamp(min=LOW)) * along
    six = torch.cat((first, second)).requires_grad_()
    matrix = rep.rotation_6d_to_matrix(six)
    (gradient,) = torch.autograd.grad((matrix * torch.arange(9.0).view(3, 3)).sum(), six)
    assert is_rotation(matrix)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", TO_MATRIX)
def test_derivatives_of_maps_to_matrices(name):
    x = raw(name, 3)
    if name == "axis_angle":  # both sides of the switch to the series, and zero itself
        x = torch.cat((x, 1e-3 * x, 1e-9 * x, 0 * x[:1]))
    x.requires_grad_()
    assert torch.autograd.gradcheck(TO_MATRIX[name], x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(TO_MATRIX[name], x)


@pytest.mark.parametrize("name", FROM_MATRIX)
def test_derivatives_of_maps_from_matrices(name):
    # Not at a half turn itself, where the sign jumps under the difference quotient, but 0.1 rad from it.
    cases = ["random"] if "euler" in name else ["random", "identity", "small", "near_half_turn"]
    matrix = torch.cat([HARD[case][-1:] for case in cases]).clone().requires_grad_()
    assert torch.autograd.gradcheck(FROM_MATRIX[name], matrix, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(FROM_MATRIX[name], matrix)


def test_exponential_has_its_own_derivatives_at_zero():
    zero = torch.zeros(3)
    first = torch.func.jacrev(rep.axis_angle_to_matrix)(zero).movedim(-1, 0)
    x, y, z = torch.eye(3)
    generators = torch.stack([torch.linalg.cross(e.expand(3, 3), torch.eye(3)).mT for e in (x, y, z)])
    assert torch.equal(first, generators)  # [e]x
    second = torch.func.hessian(rep.axis_angle_to_matrix)(zero).movedim((-2, -1), (0, 1))
    products = generators[:, None] @ generators[None]
    assert torch.equal(second, (products + products.transpose(0, 1)) / 2)


# Relative to the largest entry: 30 eps for a first derivative of a few divisions by numbers above 1/2.
JACOBIAN = 4e-6


@pytest.mark.parametrize("case", ["random", "identity", "small", "near_half_turn"])
@pytest.mark.parametrize("name", [name for name in FROM_MATRIX if "euler" not in name])
def test_float32_derivatives_are_those_of_float64(name, case):
    matrix = HARD[case].float()
    jacobian = torch.func.vmap(torch.func.jacrev(FROM_MATRIX[name]))
    exact = jacobian(matrix.double())
    # A half turn is where the sign jumps, and rounding decides it: compare up to sign.
    ours = jacobian(matrix).double()
    error = torch.minimum((ours - exact).flatten(1).abs().amax(1), (ours + exact).flatten(1).abs().amax(1))
    assert (error / exact.flatten(1).abs().amax(1)).max() < JACOBIAN
    x = FROM_MATRIX[name](matrix)
    jacobian = torch.func.vmap(torch.func.jacrev(TO_MATRIX[name]))
    exact = jacobian(x.double())
    assert largest(jacobian(x) - exact) / largest(exact) < JACOBIAN


@pytest.mark.parametrize("case", ["random", "identity", "small"])
def test_float32_second_derivatives_near_zero_are_those_of_float64(case):
    """Cancellation divides rounding by the angle: without a series the error is 1 at an angle of eps."""
    matrix = HARD[case].float()
    vector = rep.matrix_to_axis_angle(matrix)
    for function, x in ((rep.axis_angle_to_matrix, vector), (rep.matrix_to_axis_angle, matrix)):
        hessian = torch.func.vmap(torch.func.hessian(function))
        exact = hessian(x.double())
        assert largest(hessian(x) - exact) / largest(exact) < JACOBIAN


SINGULAR = {
    "6d": [
        [0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1],
        [1, 2, 3, 0, 0, 0],
        [0, 0, 0, 1, 2, 3],
        [1, 1, 1, -2, -2, -2],
    ],
    "2vec": [
        [0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1],
        [1, 2, 3, 0, 0, 0],
        [0, 0, 0, 1, 2, 3],
        [1, 1, 1, -2, -2, -2],
        [1, 0, 0, 1, 1e-7, 0],
        [1, 0, 0, -1, 1e-7, 0],
        [1, 0, 0, 0, 1, 0],
    ],
    "5d": [[0, 0, 0, 0, 0], [1, 2, 0, 0, 0], [0, 0, 1, 0, 0], [1, 1, 1e-15, 0, 0], [1, 1, 1e30, 0, 0]],
    "9d": [[0] * 9, [1] * 9, [1, 0, 0, 0, 1, 0, 0, 0, -1]],
    "10d": [[0] * 10, [1, 0, 0, 0, 1, 0, 0, 1, 0, 1]],
    "mrp": [[0, 0, 0], [1, 0, 0], [1e-30, 0, 0], [0, 0, 1e30]],
    "quaternion": [[0, 0, 0, 0]],
    "axis_angle": [[0, 0, 0], [1e-30, 0, 0], [torch.pi, 0, 0], [2 * torch.pi, 0, 0]],
    "euler_XYZ": [[0, torch.pi / 2, 0]],
    "euler_zxz": [[0, 0, 0]],
}


@pytest.mark.parametrize("dtype", ONE_MAP, ids=str)
@pytest.mark.parametrize("name", SINGULAR)
def test_singular_numbers_give_rotations_with_finite_derivatives(name, dtype):
    x = torch.tensor(SINGULAR[name], dtype=dtype)
    function = TO_MATRIX[name]
    assert is_rotation(function(x)).all()
    derivatives = [torch.func.jacrev, torch.func.jacfwd, torch.func.hessian]
    for derivative in derivatives[: 2 if name in ("9d", "10d") else 3]:  # the projection promises a gradient
        assert torch.func.vmap(derivative(function))(x).isfinite().all(), derivative


@pytest.mark.parametrize("dtype", ONE_MAP, ids=str)
@pytest.mark.parametrize("name", FROM_MATRIX)
def test_derivatives_are_finite_at_every_rotation(name, dtype):
    matrix = torch.cat([m[:24] for m in HARD.values()]).to(dtype)
    for derivative in (torch.func.jacrev, torch.func.jacfwd, torch.func.hessian):
        assert torch.func.vmap(derivative(FROM_MATRIX[name]))(matrix).isfinite().all(), derivative


def test_zero_numbers_are_the_identity():
    for name in TO_MATRIX.keys() - {"5d"}:
        assert largest(TO_MATRIX[name](torch.zeros(NUMBERS[name])) - torch.eye(3)) < ONE_MAP[torch.float32], (
            name
        )


ALL = [(TO_MATRIX[name], raw(name, 4)) for name in TO_MATRIX]
ALL += [(function, HARD["random"][:4]) for function in FROM_MATRIX.values()]
ALL += [(function, raw(first, 4)) for (first, _), function in DIRECT.items()]
IDS = [f"from_{name}" for name in TO_MATRIX] + [f"to_{name}" for name in FROM_MATRIX]
IDS += [f"{first}_to_{second}" for first, second in DIRECT]
every_map = pytest.mark.parametrize("function, x", ALL, ids=IDS)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@every_map
def test_a_bad_element_is_nan_alone(function, x, bad):
    for position in range(x[0].numel()):
        broken = x.clone()
        broken[1].view(-1)[position] = bad
        broken.requires_grad_()
        result = function(broken)
        (gradient,) = torch.autograd.grad(result.square().sum(), broken)
        others = torch.tensor([0, 2, 3])
        assert result[1].isnan().all()
        assert torch.equal(result[others], function(x)[others])
        assert gradient[others].isfinite().all()


@every_map
def test_half_precision_and_autocast(function, x):
    exact = function(x)
    for dtype, tolerance in HALF.items():
        low = x.to(dtype)
        result = function(low)
        assert result.dtype == dtype
        assert largest(result.double() - function(low.double())) < tolerance * max(1, largest(exact))
        with torch.autocast("cpu", torch.bfloat16):
            assert function(low).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(function(x.float()), function(x.float()))
        assert largest(function(x.float()) - exact) < 100 * ONE_MAP[torch.float32]
        assert function(x).dtype == torch.float64


@every_map
def test_batch_shapes(function, x):
    result = function(x)
    # Not bit by bit: the order of a sum may depend on the size of the batch.
    equal = partial(torch.testing.assert_close, rtol=0, atol=ROUND_TRIP[x.dtype])
    equal(function(x[0]), result[0])
    equal(function(x.unflatten(0, (2, 1, 2))), result.unflatten(0, (2, 1, 2)))
    equal(function(x[:0]), result[:0])
    equal(torch.func.vmap(function)(x), result)
    forward, reverse = torch.func.jacfwd(function)(x[0]), torch.func.jacrev(function)(x[0])
    assert largest(forward - reverse) < 1e-13 * largest(forward)


COMPILED = ["from_6d", "from_2vec", "from_5d", "from_mrp", "to_axis_angle", "to_10d", "axis_angle_to_mrp"]


@pytest.mark.parametrize("function, x", [ALL[IDS.index(name)] for name in COMPILED], ids=COMPILED)
def test_compiles_whole(function, x):
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    x = x.clone().requires_grad_()
    result, expected = compiled(x), function(x)
    assert torch.equal(result, expected)
    weight = torch.arange(expected.numel(), dtype=x.dtype).view_as(expected)
    ours = torch.autograd.grad((result * weight).sum(), x)[0]
    theirs = torch.autograd.grad((expected * weight).sum(), x)[0]
    torch.testing.assert_close(ours, theirs)


def test_inductor_keeps_a_bad_element_bad():
    matrix = torch.eye(3).repeat(3, 1, 1)
    matrix[1, 2, 2], matrix[2, 2, 2] = float("inf"), float("nan")
    result = torch.compile(rep.matrix_to_rotation_6d, fullgraph=True)(matrix)
    assert result.isnan().tolist() == [[False] * 6, [True] * 6, [True] * 6]


@every_map
def test_wrong_arguments_are_named(function, x):
    with pytest.raises(ValueError, match=r"must have shape \(\.\.\., .*; got \(4, 2\)"):
        function(torch.zeros(4, 2))
    with pytest.raises(TypeError, match="must be floating point"):
        function(torch.zeros(x.shape, dtype=torch.long))


@pytest.mark.parametrize("sequence", ["XY", "XXY", "XYY", "xYz", "xyw", "", "XYZX"])
def test_wrong_sequences_are_named(sequence):
    with pytest.raises(ValueError, match=r"`sequence` must be three axes.*got '"):
        rep.euler_to_matrix(torch.zeros(3), sequence)
    with pytest.raises(ValueError, match=r"`sequence` must be three axes.*got '"):
        rep.matrix_to_euler(torch.eye(3), sequence)


def test_10d_of_numbers_near_the_largest():
    symmetric = torch.tensor([1.0, 0, 0, 0, 1, 0, 0, -1, 0, -2])
    wanted = svdrot.symmetric_10d_to_matrix(symmetric)
    torch.testing.assert_close(svdrot.symmetric_10d_to_matrix(1e38 * symmetric), wanted)


# What is no rotation. Nothing is checked, and the docstrings say what comes.


@pytest.mark.parametrize("target", [kind for kind in KINDS if kind != "matrix"])
def test_maps_from_the_matrix_say_that_they_check_nothing_and_what_does(target):
    said = " ".join((rep.CONVERSIONS[f"matrix_to_{target}"].__doc__ or "").split())
    assert "Nothing checks that `matrix` is a rotation; `svdrot.is_rotation` does." in said
    assert "(det < 0" in said


NO_ROTATIONS = {
    "negated": lambda r, noise: -r,
    "mirrored": lambda r, noise: r * torch.tensor([1.0, 1.0, -1.0]).to(r),
    "doubled": lambda r, noise: 2 * r,
    "bent": lambda r, noise: r + 0.2 * noise,
    "free": lambda r, noise: noise,
}


@pytest.mark.parametrize("name", FROM_MATRIX)
@pytest.mark.parametrize("kind", NO_ROTATIONS)
def test_what_is_no_rotation_gives_numbers_of_a_rotation(name, kind):
    generator = torch.Generator().manual_seed(0)
    rotation = svdrot.random_rotation(200, generator=generator, dtype=torch.float64)
    noise = torch.randn(200, 3, 3, generator=generator, dtype=torch.float64)
    matrix = NO_ROTATIONS[kind](rotation, noise)
    assert not is_rotation(matrix).any()
    numbers = FROM_MATRIX[name](matrix)
    back = TO_MATRIX[name](numbers)
    assert numbers.isfinite().all() and is_rotation(back, tolerance=1e-13).all()

    nearest = svdrot.special_orthogonalize(matrix)
    off = torch.rad2deg(geodesic_distance(back, nearest))
    frames = name in ("6d", "2vec", "5d")
    if name in ("9d", "10d"):
        # Of a reflection all rotations by half turns are equally near, and rounding chooses.
        gained = (matrix * (back - nearest)).sum((-2, -1))
        assert (gained > -1e-9).all() and (kind in ("negated", "mirrored") or (off < 1e-9).all())
    elif kind == "doubled" and (name.startswith("euler") or name in ("6d", "2vec")):
        assert (off < 1e-10).all()
    elif kind == "doubled" and name == "5d":
        assert 26 < off.max() < 28
    elif frames and kind in ("negated", "mirrored"):
        kept = matrix * torch.tensor([1.0, 1.0, -1.0]).to(matrix)
        torch.testing.assert_close(back, kept, rtol=0, atol=1e-13)
    else:
        assert off.max() > 10  # not the nearest
    if name in ("6d", "2vec"):
        columns = torch.cat((matrix[..., 0], matrix[..., 1]), -1)
        torch.testing.assert_close(numbers, columns, rtol=0, atol=0)
