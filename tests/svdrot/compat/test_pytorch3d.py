"""pytorch3d's names through our door: beside outputs of pytorch3d 0.7.9, and by what its pages promise."""

import numpy as np
import pytest
import torch
from rotation_cases import FIXTURES, HARD
from torch import Tensor

import svdrot
from svdrot.compat.pytorch3d import ops, transforms
from svdrot.compat.pytorch3d.ops import corresponding_points_alignment
from svdrot.compat.pytorch3d.transforms import (
    Rotate,
    RotateAxisAngle,
    Scale,
    Transform3d,
    Translate,
    se3_exp_map,
    se3_log_map,
)

# The public names of pytorch3d.transforms 0.7.9, but `acos_linear_extrapolation`: see docs/compat.md.
NAMES = """axis_angle_to_matrix axis_angle_to_quaternion euler_angles_to_matrix matrix_to_axis_angle
matrix_to_euler_angles matrix_to_quaternion matrix_to_rotation_6d quaternion_apply quaternion_invert
quaternion_multiply quaternion_raw_multiply quaternion_to_axis_angle quaternion_to_matrix random_quaternions
random_rotation random_rotations rotation_6d_to_matrix standardize_quaternion se3_exp_map se3_log_map
so3_exp_map so3_exponential_map so3_log_map so3_relative_angle so3_rotation_angle Rotate RotateAxisAngle
Scale Transform3d
Translate""".split()
CLOSE = 1e-12
P = {key: torch.from_numpy(value) for key, value in np.load(FIXTURES / "pytorch3d_0.7.9.npz").items()}


def close(a: Tensor, b: Tensor, atol: float = CLOSE) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_every_name_is_here():
    assert not [name for name in NAMES if not hasattr(transforms, name)]


def test_conversions_are_those_of_pytorch3d():
    m = P["matrix"]
    q = transforms.matrix_to_quaternion(m)
    sign = (q * P["matrix_to_quaternion"]).sum(-1, keepdim=True).sign()
    close(q, sign * P["matrix_to_quaternion"])
    assert (q[:, 0] >= 0).all()
    close(transforms.quaternion_to_matrix(P["quaternion_wxyz"]), m)
    close(transforms.standardize_quaternion(P["quaternion_wxyz"]), P["standardize_quaternion"])
    close(transforms.axis_angle_to_matrix(P["matrix_to_axis_angle"]), m, 1e-7)  # pytorch3d near pi
    close(transforms.quaternion_to_axis_angle(P["quaternion_wxyz"]), P["quaternion_to_axis_angle"], 1e-7)
    close(transforms.matrix_to_rotation_6d(m), P["matrix_to_rotation_6d"])
    close(transforms.rotation_6d_to_matrix(P["rotation_6d_in"]), P["rotation_6d_to_matrix"])
    for sequence in ("XYZ", "ZYX", "ZXZ", "YXY"):
        angles = transforms.matrix_to_euler_angles(m, sequence)
        close(transforms.euler_angles_to_matrix(angles, sequence), m)
        # Where the middle angle is not near the end of its range, the numbers are the same.
        middle = angles[:, 1] if sequence[0] == sequence[2] else angles[:, 1] + torch.pi / 2
        sound = (middle > 0.1) & (middle < torch.pi - 0.1)
        apart = (angles - P[f"matrix_to_euler_{sequence}"])[sound]
        close(svdrot.wrap_angle(apart), torch.zeros_like(apart), 1e-11)  # pi and -pi are one
        close(
            transforms.euler_angles_to_matrix(P[f"euler_in_{sequence}"], sequence),
            P[f"euler_to_matrix_{sequence}"],
        )
    close(transforms.so3_exp_map(P["so3_exp_in"]), P["so3_exp"], 1e-9)
    close(transforms.so3_exp_map(transforms.so3_log_map(P["so3_exp"])), P["so3_exp"])


def test_quaternions():
    a, b, v = normal(9, 4), normal(9, 4, seed=1), normal(9, 3, seed=2)
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in (a, b))
    m, n = transforms.quaternion_to_matrix(a), transforms.quaternion_to_matrix(b)
    close(transforms.quaternion_to_matrix(transforms.quaternion_multiply(a, b)), m @ n)
    assert (transforms.quaternion_multiply(a, b)[:, 0] >= 0).all()
    raw = transforms.quaternion_raw_multiply(a, b)
    close(transforms.standardize_quaternion(raw), transforms.quaternion_multiply(a, b))
    close(transforms.quaternion_apply(a, v), (m @ v[..., None])[..., 0])
    close(transforms.quaternion_to_matrix(transforms.quaternion_invert(a)), m.mT)
    assert transforms.axis_angle_to_quaternion(v).shape == (9, 4)


def test_draws():
    assert transforms.random_quaternions(5, torch.float64).shape == (5, 4)
    assert svdrot.is_rotation(
        transforms.random_rotations(5)
    ).all() and transforms.random_rotation().shape == (3, 3)


def test_angles_and_skew_matrices():
    v, w = normal(9, 3), normal(9, 3, seed=1)
    r, s = transforms.so3_exp_map(v), transforms.so3_exp_map(w)
    close(transforms.so3_relative_angle(r, s), transforms.so3_rotation_angle(r @ s.mT))
    cosine = transforms.so3_relative_angle(r, s, cos_angle=True)
    close(cosine, transforms.so3_relative_angle(r, s).cos())
    close((transforms.hat(v) @ w[..., None])[..., 0], torch.linalg.cross(v, w))
    close(transforms.hat_inv(transforms.hat(v)), v)
    close(transforms.so3_exponential_map(v), torch.linalg.matrix_exp(transforms.hat(v)))


def test_twists_have_the_translation_first_and_matrices_are_for_rows():
    """exp of [[hat(log_rotation), 0], [log_translation, 0]] as their page has it, transposed for columns."""
    twist = normal(9, 6)
    generator = torch.zeros(9, 4, 4, dtype=torch.float64)
    generator[:, :3, :3] = transforms.hat(twist[:, 3:])
    generator[:, :3, 3] = twist[:, :3]
    found = se3_exp_map(twist)
    close(found, torch.linalg.matrix_exp(generator).mT)
    assert not found[:, :3, 3].any()
    close(se3_log_map(found), twist)
    close(Transform3d(matrix=found).get_se3_log(), twist)
    tiny = torch.tensor([1.0, 2, 3, 1e-6, 0, 0], dtype=torch.float64)
    close(se3_log_map(se3_exp_map(tiny)), tiny)


@pytest.mark.parametrize("scaled", [False, True])
def test_alignment_is_of_row_vectors(scaled):
    found = corresponding_points_alignment(P["align_x"], P["align_y"], estimate_scale=scaled)
    key = "align_scale" if scaled else "align"
    close(found.R, P[f"{key}_R_rowvector"], 1e-10)
    close(found.T, P[f"{key}_T"], 1e-10)
    if scaled:
        close(found.s, P["align_scale_s"], 1e-10)
    source = normal(4, 30, 3)
    exact = corresponding_points_alignment(source, 2 * source @ found.R[:4] + 1, estimate_scale=True)
    close(exact.s[:, None, None] * source @ exact.R + exact.T[:, None], 2 * source @ found.R[:4] + 1)


def test_alignment_with_reflections_and_lists():
    found = corresponding_points_alignment(P["align_x"], P["align_y"], allow_reflection=True)
    close(found.R, P["align_reflect_R_rowvector"], 1e-10)
    listed = corresponding_points_alignment(list(P["align_x"]), list(P["align_y"]))
    close(listed.R, P["align_R_rowvector"], 1e-10)
    assert isinstance(listed, ops.SimilarityTransform)


def test_weights_count_once():
    """On purpose: pytorch3d multiplies both clouds by weights, and its sum of squares is not the least."""
    x, y, w = P["align_x"], P["align_y"], P["align_w"]

    def left(r: Tensor, t: Tensor) -> Tensor:
        return (w * (x @ r + t[:, None] - y).square().sum(-1)).sum(-1)

    found = corresponding_points_alignment(x, y, w)
    theirs = left(P["align_weighted_R_rowvector"], P["align_weighted_T"])
    assert (left(found.R, found.T) < theirs).all()


def test_transforms_compose_from_left_to_right():
    """The three ways of their page give the same points."""
    x = normal(5, 7, 3)
    t1 = Transform3d(dtype=torch.float64).scale(0.5).translate(1, 2, 3)
    t2 = RotateAxisAngle(30, "Y", dtype=torch.float64).scale(1.0, 3.0, 3.0)
    t3 = Rotate(transforms.random_rotations(5, torch.float64), torch.float64)
    y = t3.transform_points(t2.transform_points(t1.transform_points(x)))
    close(t1.compose(t2).compose(t3).transform_points(x), y)
    close(t1.compose(t2, t3).transform_points(x), y)
    assert len(t1) == 1 and len(t1.compose(t2, t3)) == 5
    close(t1.compose(t2, t3).inverse().transform_points(y), x)
    close(t1.transform_points(x[0]), 0.5 * x[0] + torch.tensor([1.0, 2, 3], dtype=torch.float64))
    stacked = t1.stack(t2, t3)
    assert len(stacked) == 7
    close(stacked[1].transform_points(x[0]), t2.transform_points(x[0]))
    homogeneous = torch.cat((x, torch.ones_like(x[..., :1])), -1) @ t3.get_matrix()
    close(t3.transform_points(x), homogeneous[..., :3])


def test_shapes_of_points():
    one, many = Transform3d().translate(1.0, 0.0, 0.0), Translate(torch.randn(4, 3))
    for transform, n in ((one, 1), (many, 4)):
        assert transform.transform_points(torch.randn(6, 3)).shape == ((6, 3) if n == 1 else (4, 6, 3))
        assert transform.transform_points(torch.randn(1, 6, 3)).shape == (n, 6, 3)
        assert transform.transform_normals(torch.randn(6, 3)).shape == ((6, 3) if n == 1 else (4, 6, 3))
    assert one.transform_points(torch.randn(5, 6, 3)).shape == (5, 6, 3)


def test_rotations_turn_counterclockwise():
    x = torch.tensor([[1.0, 0.0, 0.0]])
    close(RotateAxisAngle(90, "Z").transform_points(x), torch.tensor([[0.0, 1.0, 0.0]]), 1e-6)
    quarter = transforms.axis_angle_to_matrix(torch.tensor([0.0, 0.0, torch.pi / 2]))
    close(Rotate(quarter.mT).transform_points(x), torch.tensor([[0.0, 1.0, 0.0]]), 1e-6)
    radians = RotateAxisAngle(torch.tensor([0.0, torch.pi / 2]), "z", degrees=False)
    close(radians.get_matrix()[1, :3, :3], quarter.mT, 1e-6)


def test_normals_stay_perpendicular():
    t = Scale(1.0, 2.0, 5.0).rotate(transforms.random_rotation())
    normal_, along = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, -1.0, 0.0]])
    turned = t.transform_points(along) - t.transform_points(torch.zeros(1, 3))
    assert (t.transform_normals(normal_) * turned).sum().abs() < 1e-5


def test_projective_transforms_divide():
    matrix = torch.eye(4)
    matrix[2, 3], matrix[3, 3] = 1, 0  # divide by z
    points = torch.tensor([[2.0, 4.0, 2.0], [1.0, 1.0, 0.0]])
    found = Transform3d(matrix=matrix).transform_points(points, eps=1e-2)
    close(found, torch.tensor([[1.0, 2.0, 1.0], [100.0, 100.0, 0.0]]), 1e-4)


def test_scales_and_translations_of_any_form():
    close(Scale(2.0).get_matrix()[0, :3, :3], 2 * torch.eye(3))
    assert Scale(torch.tensor([1.0, 2.0])).get_matrix().shape == (2, 4, 4)
    close(
        Scale(torch.tensor([[1.0, 2.0, 3.0]])).get_matrix()[0].diagonal()[:3], torch.tensor([1.0, 2.0, 3.0])
    )
    close(Translate(1.0, torch.tensor([2.0, 3.0]), 0.0).get_matrix()[1, 3, :3], torch.tensor([1.0, 3.0, 0.0]))
    with pytest.raises(ValueError, match="`y` and `z` must be given"):
        Translate(1.0)
    with pytest.raises(ValueError, match=r"`x` must have shape \(N, 3\)"):
        Scale(torch.ones(2, 2))


def test_gradients_pass_and_precision_is_kept():
    s, t, r = torch.rand(4).add(1), torch.randn(4, 3), torch.randn(4, 3)
    s, t, r = (value.double().requires_grad_() for value in (s, t, r))
    x = normal(4, 5, 3)

    def moved(s, t, r):
        kind = {"dtype": torch.float64}
        whole = Transform3d(**kind).scale(s).translate(t)
        return whole.rotate(transforms.axis_angle_to_matrix(r).mT).transform_points(x)

    assert torch.autograd.gradcheck(moved, (s, t, r))
    assert moved(s, t, r).dtype == torch.float64
    copy = Transform3d().to("cpu", dtype=torch.float64)
    assert copy.dtype == torch.float64 and copy.clone().device == torch.device("cpu")
    assert copy.to("cpu") is copy is not copy.to("cpu", copy=True) and isinstance(Scale(2.0)[0], Scale)


def test_angles_at_the_ends_are_exact():
    """On purpose: pytorch3d answers 0.00707 at 0, with a gradient of 61."""
    r = torch.eye(3, dtype=torch.float64)[None].requires_grad_()
    angle = transforms.so3_relative_angle(r, torch.eye(3, dtype=torch.float64)[None])
    angle.sum().backward()
    assert angle == 0 and r.grad is not None and not r.grad.any()
    half = HARD["half_turn"]
    close(transforms.so3_rotation_angle(half), torch.full((len(half),), torch.pi, dtype=torch.float64), 1e-7)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`convention` must be three upper-case axes"):
        transforms.euler_angles_to_matrix(torch.zeros(3), "xyz")
    with pytest.raises(ValueError, match=r"`matrix` must have shape \(4, 4\) or \(N, 4, 4\)"):
        Transform3d(matrix=torch.eye(3))
    with pytest.raises(ValueError, match="`axis` must be X, Y or Z"):
        RotateAxisAngle(1.0, "w")
    with pytest.raises(ValueError, match=r"`angle` must be a number or have shape \(N,\); got \(2, 2\)"):
        RotateAxisAngle(torch.ones(2, 2))
    with pytest.raises(ValueError, match="Batch dimensions must broadcast"):
        Translate(torch.ones(2), torch.ones(3), 0.0)
    with pytest.raises(ValueError, match="Batch dimensions must broadcast"):
        Translate(torch.ones(2, 3)).compose(Translate(torch.ones(3, 3)))
    with pytest.raises(ValueError, match=r"`others` must be of Transform3d"):
        Transform3d().compose(torch.eye(4))  # type: ignore[arg-type]
