"""The conventions of other libraries, each cell of the table beside what the library itself computes."""

import re

import numpy as np
import pytest
import roma
import torch
from rotation_cases import FIXTURES, HARD
from scipy.spatial.transform import Rotation

import svdrot
from svdrot import conventions, convert_rotation
from svdrot.conventions import (
    AXES,
    CONVENTIONS,
    SOURCES,
    change_of_axes,
    from_convention,
    from_scipy,
    to_convention,
    to_scipy,
)
from svdrot.metrics import geodesic_distance
from svdrot.representations import SEQUENCES

PYTORCH3D = np.load(FIXTURES / "pytorch3d_0.7.9.npz")
MATRIX = HARD["random"]
# Their map and ours differ by 1.3e-15 at most over these draws.
EXACT = 1e-14
CELLS = [(library, name) for library, names in CONVENTIONS.items() for name in names]


def ours(name, matrix=MATRIX):
    return convert_rotation(matrix, "matrix", name)


def assert_same_rotation(value, name, matrix=MATRIX, atol=EXACT):
    assert (convert_rotation(value, name, "matrix") - matrix).abs().max() < atol


def fixture(key):
    return torch.from_numpy(PYTORCH3D[key])


@pytest.mark.parametrize("library, name", CELLS)
def test_writing_and_reading_are_inverse(library, name):
    value = ours(name)
    back = from_convention(to_convention(value, library, name), library, name)
    torch.testing.assert_close(back, value, rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", CONVENTIONS["scipy"])
def test_scipy(name):
    theirs = {
        "matrix": (Rotation.from_matrix, Rotation.as_matrix),
        "quaternion": (Rotation.from_quat, Rotation.as_quat),
        "axis_angle": (Rotation.from_rotvec, Rotation.as_rotvec),
        "mrp": (Rotation.from_mrp, Rotation.as_mrp),
    }
    sequence = name.removeprefix("euler_")
    euler = (lambda x: Rotation.from_euler(sequence, x)), (lambda r: r.as_euler(sequence))
    read, write = theirs.get(name, euler)
    read_by_them = read(to_convention(ours(name), "scipy", name).numpy()).as_matrix()
    assert (torch.from_numpy(read_by_them) - MATRIX).abs().max() < EXACT
    written = torch.from_numpy(write(Rotation.from_matrix(MATRIX.numpy())))
    assert_same_rotation(from_convention(written, "scipy", name), name)


@pytest.mark.parametrize("name", CONVENTIONS["roma"])
def test_roma(name):
    sequence = name.removeprefix("euler_")
    read = {
        "matrix": lambda x: x,
        "quaternion": roma.unitquat_to_rotmat,
        "axis_angle": roma.rotvec_to_rotmat,
        "6d": roma.special_gramschmidt,
        "9d": roma.special_procrustes,
        "10d": lambda x: roma.unitquat_to_rotmat(roma.symmatrixvec_to_unitquat(x)),
    }.get(name, lambda x: roma.euler_to_rotmat(sequence, x))
    assert (read(to_convention(ours(name), "roma", name)) - MATRIX).abs().max() < EXACT
    generator = torch.Generator().manual_seed(0)
    if name in ("6d", "9d", "10d"):  # what a network gives: any numbers
        raw = torch.randn(50, *CONVENTIONS["roma"][name].shape, dtype=torch.float64, generator=generator)
        assert geodesic_distance(
            convert_rotation(from_convention(raw, "roma", name), name, "matrix"), read(raw)
        ).max() < (EXACT if name == "6d" else 1e-11)  # rounding over the gap, least 0.01 for these draws
        return
    write = {
        "matrix": lambda r: r,
        "quaternion": roma.rotmat_to_unitquat,
        "axis_angle": roma.rotmat_to_rotvec,
    }.get(name, lambda r: roma.rotmat_to_euler(sequence, r))
    written = write(MATRIX)
    assert_same_rotation(from_convention(written, "roma", name), name)


def test_pytorch3d():
    matrix = fixture("matrix")
    for name, key in (("quaternion", "matrix_to_quaternion"), ("axis_angle", "matrix_to_axis_angle")):
        assert_same_rotation(from_convention(fixture(key), "pytorch3d", name), name, matrix)
    six = from_convention(fixture("rotation_6d_in"), "pytorch3d", "6d")
    # 9.6e-15 apart for these raw numbers.
    assert_same_rotation(six, "6d", fixture("rotation_6d_to_matrix"), atol=3e-14)
    written = to_convention(ours("6d", matrix), "pytorch3d", "6d")
    assert (written - fixture("matrix_to_rotation_6d")).abs().max() < EXACT
    for sequence in ("XYZ", "ZYX", "ZXZ", "YXY"):
        name = f"euler_{sequence}"
        angles = from_convention(fixture(f"euler_in_{sequence}"), "pytorch3d", name)
        assert_same_rotation(angles, name, fixture(f"euler_to_matrix_{sequence}"))
    quaternion = to_convention(ours("quaternion", matrix), "pytorch3d", "quaternion")
    standard = fixture("standardize_quaternion")
    sign = (quaternion * standard).sum(-1, keepdim=True).sign()
    assert (quaternion - sign * standard).abs().max() < EXACT


def test_transform3d_of_pytorch3d_multiplies_rows():
    x, y = fixture("align_x"), fixture("align_y")
    rotation = from_convention(fixture("align_R_rowvector"), "pytorch3d.Transform3d", "matrix")
    translation = fixture("align_T")
    residual = y - (x @ rotation.mT + translation[:, None])  # column vectors: rotation @ x
    other = y - (x @ rotation + translation[:, None])
    assert (residual.square().sum((1, 2)) < other.square().sum((1, 2))).all()


@pytest.mark.parametrize("name", CONVENTIONS["kornia"])
def test_kornia(name):
    conversions = pytest.importorskip("kornia.geometry.conversions", exc_type=ImportError)
    c = conversions

    def from_roll_pitch_yaw(x):
        return c.quaternion_to_rotation_matrix(torch.stack(c.quaternion_from_euler(*x.unbind(-1)), -1))

    def to_roll_pitch_yaw(r):
        return torch.stack(c.euler_from_quaternion(*c.rotation_matrix_to_quaternion(r).unbind(-1)), -1)

    read, write = {
        "matrix": (lambda x: x, lambda r: r),
        "quaternion": (c.quaternion_to_rotation_matrix, c.rotation_matrix_to_quaternion),
        "axis_angle": (c.axis_angle_to_rotation_matrix, c.rotation_matrix_to_axis_angle),
        "euler_xyz": (from_roll_pitch_yaw, to_roll_pitch_yaw),
    }[name]
    assert (read(to_convention(ours(name), "kornia", name)) - MATRIX).abs().max() < EXACT
    assert_same_rotation(from_convention(write(MATRIX), "kornia", name), name)


def read_and_written(library, name, read, write):
    """Check a cell by what the library itself makes of numbers, one rotation at a time, and back."""
    theirs = to_convention(ours(name), library, name).numpy()
    matrix = torch.stack([torch.from_numpy(np.array(read(x), dtype=float)) for x in theirs])
    assert (matrix - MATRIX).abs().max() < 1e-7  # some of them compute in float32
    if write is not None:
        back = np.stack([np.array(write(r), dtype=float).reshape(theirs[0].shape) for r in MATRIX.numpy()])
        assert_same_rotation(from_convention(torch.from_numpy(back), library, name), name, atol=1e-7)


@pytest.mark.parametrize("name", CONVENTIONS["open3d"])
def test_open3d(name):
    geometry = pytest.importorskip("open3d", exc_type=ImportError).geometry
    order = name.removeprefix("euler_").lower()
    read = {
        "matrix": lambda m: m,
        "quaternion": geometry.get_rotation_matrix_from_quaternion,
        "axis_angle": geometry.get_rotation_matrix_from_axis_angle,
    }.get(name) or getattr(geometry, f"get_rotation_matrix_from_{order}")
    read_and_written("open3d", name, read, None)


@pytest.mark.parametrize("name", CONVENTIONS["pypose"])
def test_pypose(name):
    pp = pytest.importorskip("pypose", exc_type=ImportError)
    read, write = {
        "matrix": (lambda m: pp.mat2SO3(torch.from_numpy(m)).matrix(), lambda r: r),
        "quaternion": (
            lambda q: pp.SO3(torch.from_numpy(q)).matrix(),
            lambda r: pp.mat2SO3(torch.from_numpy(r)).tensor(),
        ),
        "axis_angle": (
            lambda v: pp.so3(torch.from_numpy(v)).Exp().matrix(),
            lambda r: pp.mat2SO3(torch.from_numpy(r)).Log().tensor(),
        ),
        "euler_xyz": (
            lambda a: pp.euler2SO3(torch.from_numpy(a)).matrix(),
            lambda r: pp.mat2SO3(torch.from_numpy(r)).euler(),
        ),
    }[name]
    read_and_written("pypose", name, read, write)


def test_opencv():
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    both = lambda x: cv2.Rodrigues(x)[0]  # noqa: E731
    read_and_written("opencv", "axis_angle", both, both)


@pytest.mark.parametrize("name", CONVENTIONS["pycolmap"])
def test_pycolmap(name):
    pycolmap = pytest.importorskip("pycolmap", exc_type=ImportError)
    read = lambda x: pycolmap.Rotation3d(x).matrix()  # noqa: E731
    write = lambda r: pycolmap.Rotation3d(r).quat if name == "quaternion" else r  # noqa: E731
    read_and_written("pycolmap", name, read, write)


@pytest.mark.parametrize("name", CONVENTIONS["mujoco"])
def test_mujoco(name):
    mujoco = pytest.importorskip("mujoco", exc_type=ImportError)

    def quaternion(angles):
        found = np.zeros(4)
        mujoco.mju_euler2Quat(found, angles, name.removeprefix("euler_").swapcase())
        return found

    def matrix(quat):
        found = np.zeros(9)
        mujoco.mju_quat2Mat(found, quat)
        return found

    def written(r):
        found = np.zeros(4)
        mujoco.mju_mat2Quat(found, r.flatten())
        return found

    read = {
        "matrix": lambda m: matrix(written(m)).reshape(3, 3),
        "quaternion": lambda q: matrix(q).reshape(3, 3),
    }
    write = {"matrix": lambda r: matrix(written(r)), "quaternion": written}
    read_and_written(
        "mujoco", name, read.get(name, lambda a: matrix(quaternion(a)).reshape(3, 3)), write.get(name)
    )


def turned(axis: str, angle: float) -> np.ndarray:
    return Rotation.from_euler(axis, angle).as_matrix()


@pytest.mark.parametrize("order", ["xyz", "xzy", "yxz", "yzx", "zxy", "zyx"])
def test_blender_as_its_pages_say(order):
    """Angles about x, y, z, each at its place, applied about fixed axes in the order of the name."""
    angles = {"x": 0.3, "y": -0.5, "z": 1.1}
    stored = torch.tensor([angles[axis] for axis in "xyz"], dtype=torch.float64)
    expected = np.eye(3)
    for axis in order:
        expected = turned(axis, angles[axis]) @ expected
    read = from_convention(stored, "blender", f"euler_{order}")
    assert_same_rotation(read, f"euler_{order}", torch.from_numpy(expected))


def test_unity_as_its_pages_say():
    """Degrees about z, then x, then y, of fixed axes, stored as x, y, z."""
    stored = torch.tensor([20.0, -40.0, 70.0], dtype=torch.float64)
    x, y, z = np.deg2rad(stored.numpy())
    expected = torch.from_numpy(turned("y", y) @ turned("x", x) @ turned("z", z))
    read = from_convention(stored, "unity", "euler_zxy", degrees=True)
    assert_same_rotation(read, "euler_zxy", expected)


def test_arrays_in_memory_as_pages_say():
    """OpenGL keeps matrices column by column; MuJoCo and BOP have nine numbers row by row."""
    m = MATRIX[0]
    assert torch.equal(from_convention(m.mT, "opengl", "matrix"), m)
    for library in ("bop", "mujoco"):
        assert torch.equal(from_convention(m.flatten(), library, "matrix"), m)
    assert torch.equal(
        to_convention(ours("quaternion"), "ros", "quaternion"), ours("quaternion").roll(-1, -1)
    )
    assert torch.equal(to_convention(ours("quaternion"), "colmap", "quaternion"), ours("quaternion"))


def test_every_library_has_a_source_and_a_line():
    assert SOURCES.keys() == CONVENTIONS.keys()
    assert all(source.startswith("https://") for source in SOURCES.values())
    lines = re.findall(r"^\| ([\w.]+) \|", conventions.__doc__ or "", re.MULTILINE)
    assert lines == [*CONVENTIONS]


@pytest.mark.parametrize("source", AXES)
@pytest.mark.parametrize("target", AXES)
def test_axes_change_there_and_back(source, target):
    p = change_of_axes(source, target)
    assert torch.equal(p @ p.mT, torch.eye(3, dtype=torch.float64))
    assert torch.equal(p, change_of_axes("opencv", target) @ change_of_axes(source, "opencv"))
    left_handed = {"unity", "unreal"}
    assert torch.linalg.det(p) == (-1 if (source in left_handed) != (target in left_handed) else 1)


def test_frames_are_those_of_their_pages():
    def at(source, target, *x):
        return (change_of_axes(source, target) @ torch.tensor(x, dtype=torch.float64)).tolist()

    assert at("ros", "opencv", 1, 2, 3) == [-2, -3, 1]  # forward, left, up to right, down, forward
    assert at("opencv", "opengl", 1, 2, 3) == [1, -2, -3]
    assert at("pytorch3d", "opencv", 1, 2, 3) == [-1, -2, 3]
    assert at("unity", "unreal", 1, 2, 3) == [3, 1, 2]
    with pytest.raises(ValueError, match="`target` must be one of"):
        change_of_axes("ros", "ned")


def test_look_at_knows_the_same_frames():
    eye, target, up = (torch.tensor(x, dtype=torch.float64) for x in ([1.0, 2, 3], [0.0, 1, 0], [0.0, 0, 1]))
    cameras = [svdrot.look_at(eye, target, up, convention) for convention in ("opencv", "opengl")]
    torch.testing.assert_close(
        change_of_axes("opencv", "opengl") @ cameras[0], cameras[1], rtol=0, atol=EXACT
    )


def test_kornia_quaternion_logarithm():
    c = pytest.importorskip("kornia.geometry.conversions", exc_type=ImportError)
    half = to_convention(ours("axis_angle"), "kornia.quaternion_log", "axis_angle")
    assert_same_rotation(c.quaternion_log_to_exp(half), "quaternion")
    logarithm = c.quaternion_exp_to_log(ours("quaternion"))
    vector = from_convention(logarithm, "kornia.quaternion_log", "axis_angle")
    assert_same_rotation(vector, "axis_angle")


def test_degrees_are_those_of_scipy_and_roma():
    rotation = Rotation.from_matrix(MATRIX.numpy())
    angles = torch.from_numpy(rotation.as_euler("ZYX", degrees=True))
    assert_same_rotation(from_convention(angles, "scipy", "euler_ZYX", degrees=True), "euler_ZYX")
    written = to_convention(ours("euler_ZYX"), "scipy", "euler_ZYX", degrees=True)
    assert (written - angles).abs().max() < 1e-11  # 180 / pi times the rounding of radians
    vector = torch.from_numpy(rotation.as_rotvec(degrees=True))
    assert_same_rotation(from_convention(vector, "scipy", "axis_angle", degrees=True), "axis_angle")
    theirs = roma.euler_to_rotmat("ZYX", written, degrees=True)
    assert (theirs - MATRIX).abs().max() < EXACT


def test_rotation_objects_of_scipy_come_and_go():
    for case, matrix in HARD.items():
        assert (from_scipy(to_scipy(matrix)) - matrix).abs().max() < EXACT, case
    assert from_scipy(to_scipy(torch.eye(3)), torch.float32).dtype == torch.float32


@pytest.mark.parametrize("library, name", [cell for cell in CELLS if "euler" not in cell[1]])
def test_batches_dtypes_and_derivatives_pass_through(library, name):
    value = ours(name)
    theirs = to_convention(value, library, name)
    batch = value.unflatten(0, (8, 2, 4))
    assert torch.equal(to_convention(batch, library, name), theirs.unflatten(0, (8, 2, 4)))
    vmapped = torch.func.vmap(lambda x: from_convention(x, library, name))(theirs)
    torch.testing.assert_close(vmapped, value, rtol=0, atol=EXACT)
    assert to_convention(value.half(), library, name).dtype == torch.float16
    jacobian = torch.func.jacrev(lambda x: to_convention(x, library, name))(value[0])
    assert jacobian.isfinite().all() and jacobian.any()


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`library` must be one of 'scipy', 'roma'.*got 'numpy'"):
        from_convention(torch.eye(3), "numpy", "matrix")
    with pytest.raises(ValueError, match=r"`representation` must be one of 'matrix', .*got '5d'"):
        to_convention(torch.zeros(5), "scipy", "5d")
    with pytest.raises(ValueError, match=r"`representation` must be one of .*got 'euler_xyz'"):
        from_convention(torch.zeros(3), "pytorch3d", "euler_xyz")
    with pytest.raises(ValueError, match=r"`value` must have shape \(\.\.\., 3, 2\); got \(6,\)"):
        from_convention(torch.zeros(6), "roma", "6d")
    with pytest.raises(ValueError, match=r"`degrees` are units .*got 'quaternion'"):
        to_convention(torch.zeros(4), "scipy", "quaternion", degrees=True)
    with pytest.raises(TypeError, match="must be floating point"):
        to_convention(torch.zeros(4, dtype=torch.long), "scipy", "quaternion")


def test_every_sequence_is_in_the_table():
    assert len(SEQUENCES) == 24
    assert {f"euler_{s}" for s in SEQUENCES} <= CONVENTIONS["scipy"].keys() & CONVENTIONS["roma"].keys()
    assert sum(name.startswith("euler_") for name in CONVENTIONS["pytorch3d"]) == 12


@pytest.mark.parametrize(
    ("library", "representation", "shape"),
    [("scipy", "quaternion", (5,)), ("scipy", "matrix", (7,)), ("pytorch3d.Transform3d", "matrix", (2, 3)),
     ("roma", "10d", (12,)), ("roma", "6d", (7,)), ("kornia", "euler_xyz", (4,))],
)  # fmt: skip
def test_shapes_of_our_own_are_checked(library, representation, shape):
    with pytest.raises(ValueError, match=r"`value` must have shape"):
        to_convention(torch.ones(shape), library, representation)


def test_a_view_that_changes_the_sign_goes_to_scipy():
    matrix = torch.complex(torch.zeros(3, 3, dtype=torch.float64), -HARD["random"][0]).conj().imag
    assert matrix.is_neg()
    assert (from_scipy(to_scipy(matrix)) - matrix).abs().max() < EXACT


def test_what_scipy_has_none_of_is_named():
    with pytest.raises(ValueError, match="`matrix` must be finite"):
        to_scipy(torch.full((3, 3), torch.nan))
    with pytest.raises(TypeError, match="`rotation` must be a Rotation of scipy; got list"):
        from_scipy([])
