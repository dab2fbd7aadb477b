"""The table of conventions: the numbers of each library and representation, how to read and to write them."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from svdrot._precision import result_dtype, to_compute
from svdrot.representations import SEQUENCES, matrix_to_rotation_6d, rotation_6d_to_matrix


class Pair(NamedTuple):
    """Hold how the numbers of a library are read, and written."""

    shape: tuple[int, ...]  # of one element there
    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]


def _same(value: Tensor) -> Tensor:
    return value


def _transposed(value: Tensor) -> Tensor:
    return value.mT


def _last_to_first(xyzw: Tensor) -> Tensor:
    return xyzw.roll(1, -1)


def _first_to_last(wxyz: Tensor) -> Tensor:
    return wxyz.roll(-1, -1)


def _rows_and_columns(rotation_6d: Tensor) -> Tensor:
    """Return the first two columns from the first two rows, or the reverse: the matrix is transposed."""
    matrix = rotation_6d_to_matrix(to_compute(rotation_6d, 1))
    return matrix_to_rotation_6d(matrix.mT).to(result_dtype(rotation_6d))


def _by_axis(sequence: str) -> Pair:
    """Return the angles of a sequence of three axes, there stored as those about x, y and z."""
    at = ["xyz".index(axis) for axis in sequence.lower()]
    back = [at.index(k) for k in range(3)]
    return Pair((3,), lambda stored: stored[..., at], lambda angles: angles[..., back])


# Where the entries of the upper triangle of a symmetric matrix go if its last row and column come first.
_LAST_TO_FIRST_10D = (9, 3, 6, 8, 0, 1, 2, 4, 5, 7)
_FIRST_TO_LAST_10D = (4, 5, 6, 1, 7, 8, 2, 9, 3, 0)

_MATRIX = Pair((3, 3), _same, _same)
_NINE = Pair((9,), lambda m: m.unflatten(-1, (3, 3)), lambda m: m.flatten(-2))
_WXYZ = Pair((4,), _same, _same)
_XYZW = Pair((4,), _last_to_first, _first_to_last)
_THREE = Pair((3,), _same, _same)
_EULER = {f"euler_{sequence}": _THREE for sequence in SEQUENCES}
_ORDERS = ("xyz", "xzy", "yxz", "yzx", "zxy", "zyx")

CONVENTIONS: dict[str, dict[str, Pair]] = {
    "scipy": {"matrix": _MATRIX, "quaternion": _XYZW, "axis_angle": _THREE, "mrp": _THREE, **_EULER},
    "roma": {
        "matrix": _MATRIX,
        "quaternion": _XYZW,
        "axis_angle": _THREE,
        "6d": Pair((3, 2), lambda m: m.mT.flatten(-2), lambda x: x.unflatten(-1, (2, 3)).mT),
        "9d": Pair((3, 3), lambda m: m.flatten(-2), lambda x: x.unflatten(-1, (3, 3))),
        "10d": Pair((10,), lambda a: a[..., _LAST_TO_FIRST_10D], lambda a: a[..., _FIRST_TO_LAST_10D]),
        **_EULER,
    },
    "pytorch3d": {
        "matrix": _MATRIX,
        "quaternion": _WXYZ,
        "axis_angle": _THREE,
        "6d": Pair((6,), _rows_and_columns, _rows_and_columns),
        **{name: pair for name, pair in _EULER.items() if name[-3:].isupper()},
    },
    "pytorch3d.Transform3d": {"matrix": Pair((3, 3), _transposed, _transposed)},
    "kornia": {"matrix": _MATRIX, "quaternion": _WXYZ, "axis_angle": _THREE, "euler_xyz": _THREE},
    "kornia.quaternion_log": {"axis_angle": Pair((3,), lambda v: v * 2, lambda v: v / 2)},
    "pypose": {"matrix": _MATRIX, "quaternion": _XYZW, "axis_angle": _THREE, "euler_xyz": _THREE},
    "open3d": {
        "matrix": _MATRIX,
        "quaternion": _WXYZ,
        "axis_angle": _THREE,
        **{f"euler_{order.upper()}": _THREE for order in _ORDERS},
    },
    "ros": {"quaternion": _XYZW, "euler_xyz": _THREE},
    "colmap": {"quaternion": _WXYZ},
    "pycolmap": {"matrix": _MATRIX, "quaternion": _XYZW},
    "opencv": {"matrix": _MATRIX, "quaternion": _WXYZ, "axis_angle": _THREE},
    "opengl": {"matrix": Pair((3, 3), _transposed, _transposed)},
    "blender": {
        "matrix": _MATRIX,
        "quaternion": _WXYZ,
        **{f"euler_{order}": _by_axis(order) for order in _ORDERS},
    },
    "unity": {"quaternion": _XYZW, "euler_zxy": _by_axis("zxy")},
    "mujoco": {"matrix": _NINE, "quaternion": _WXYZ, **_EULER},
    "smpl": {"matrix": _MATRIX, "axis_angle": _THREE},
    "bop": {"matrix": _NINE},
}

# Where each says so. Those of packages that install are tested against them, too.
SOURCES: dict[str, str] = {
    "scipy": "https://docs.scipy.org/doc/scipy/reference/generated/scipy.spatial.transform.Rotation.html",
    "roma": "https://naver.github.io/roma/",
    "pytorch3d": "https://pytorch3d.readthedocs.io/en/latest/modules/transforms.html",
    "pytorch3d.Transform3d": "https://pytorch3d.readthedocs.io/en/latest/modules/transforms.html",
    "kornia": "https://kornia.readthedocs.io/en/latest/geometry.conversions.html",
    "kornia.quaternion_log": "https://kornia.readthedocs.io/en/latest/geometry.conversions.html",
    "pypose": "https://pypose.org/docs/main/generated/pypose.SO3/",
    "open3d": "https://www.open3d.org/docs/release/tutorial/geometry/transformation.html",
    "ros": "https://www.ros.org/reps/rep-0103.html",
    "colmap": "https://colmap.github.io/format.html",
    "pycolmap": "https://colmap.github.io/pycolmap/pycolmap.html",
    "opencv": "https://docs.opencv.org/4.x/d9/d0c/group__calib3d.html",
    "opengl": "https://registry.khronos.org/OpenGL-Refpages/gl2.1/xhtml/glLoadMatrix.xml",
    "blender": "https://docs.blender.org/api/current/mathutils.html",
    "unity": "https://docs.unity3d.com/ScriptReference/Transform-eulerAngles.html",
    "mujoco": "https://mujoco.readthedocs.io/en/stable/modeling.html#frame-orientations",
    "smpl": "https://github.com/vchoutas/smplx",
    "bop": "https://github.com/thodan/bop_toolkit/blob/master/docs/bop_datasets_format.md",
}
