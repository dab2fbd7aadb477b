"""Everyday geometry as others have it: libraries where they load, and the textbook's formulas in torch.

`CASES` has for each function how to make its arguments, ours, and those of the others by name; what a library
lacks is not there. Quaternions are handed to each in its own order, made before anything is timed.
"""

import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

import svdrot

OURS, TORCH = "svdrot", "textbook"
PEERS = ("roma", "kornia", "scipy", "pypose", "pytorch3d")
SEQUENCE, SHARE = "XYZ", 0.3
Function = Callable[..., Any]


class Case(NamedTuple):
    kind: str  # which of the expectations is meant
    shapes: tuple[str, ...]  # what the arguments are: keys of MAKERS
    functions: dict[str, Function]


def loaded() -> dict[str, Any]:
    """Load the peers that are installed, by name; None for the others."""
    found: dict[str, Any] = {}
    for name in PEERS:
        try:
            found[name] = importlib.import_module("scipy.spatial.transform" if name == "scipy" else name)
        except ImportError:
            found[name] = None
    return found


def _numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0] + shape[-1]))


def _units(n: int) -> Tensor:
    return torch.nn.functional.normalize(_numbers(n, 4), dim=-1)


MAKERS: dict[str, Callable[[int], Tensor]] = {
    "quaternion": _units,
    "other quaternion": lambda n: _units(n + 1)[1:].contiguous(),
    "vector": lambda n: _numbers(n, 3),
    "other vector": lambda n: _numbers(n + 1, 3)[1:].contiguous(),
    "third vector": lambda n: _numbers(n + 2, 3)[2:].contiguous(),
    "matrix": lambda n: svdrot.quaternion_to_matrix(_units(n)),
    "any matrix": lambda n: _numbers(n, 3, 3),
    "twist": lambda n: _numbers(n, 6),
    "other matrix": lambda n: svdrot.quaternion_to_matrix(_units(n + 1)[1:].contiguous()),
}
POSE, OTHER_POSE = ("matrix", "vector"), ("other matrix", "other vector")


def cases() -> dict[str, Case]:
    """Collect all functions, with those of the peers that load."""
    peers = loaded()
    found = {
        "product of quaternions": Case(
            "algebra", ("quaternion", "other quaternion"), {OURS: svdrot.quaternion_multiply}
        ),
        "inverse of quaternions": Case("algebra", ("quaternion",), {OURS: svdrot.quaternion_inverse}),
        "image of points": Case("algebra", ("quaternion", "vector"), {OURS: svdrot.quaternion_apply}),
        "exp": Case("maps", ("vector",), {OURS: svdrot.axis_angle_to_matrix}),
        "log": Case("maps", ("matrix",), {OURS: svdrot.matrix_to_axis_angle}),
        "slerp": Case(
            "maps",
            ("quaternion", "other quaternion"),
            {OURS: lambda a, b: svdrot.quaternion_slerp(a, b, SHARE)},
        ),
        "Euler to matrix": Case("maps", ("vector",), {OURS: lambda a: svdrot.euler_to_matrix(a, SEQUENCE)}),
        "matrix to Euler": Case("maps", ("matrix",), {OURS: lambda m: svdrot.matrix_to_euler(m, SEQUENCE)}),
        "swing and twist": Case("maps", ("matrix", "vector"), {OURS: svdrot.swing_twist, TORCH: swing_twist}),
        "rotation between": Case(
            "maps", ("vector", "other vector"), {OURS: svdrot.rotation_between, TORCH: rotation_between}
        ),
        "look at": Case(
            "maps",
            ("vector", "other vector", "third vector"),
            {OURS: svdrot.look_at, TORCH: look_at},
        ),
        "left Jacobian": Case("maps", ("vector",), {OURS: svdrot.so3_left_jacobian, TORCH: left_jacobian}),
        "exp of SE(3)": Case("maps", ("twist",), {OURS: lambda x: _parts(svdrot.se3_exp(x)), TORCH: se3_exp}),
        "log of SE(3)": Case("maps", POSE, {OURS: lambda *x: _pose(*x).log(), TORCH: se3_log}),
        "product of poses": Case(
            "algebra",
            POSE + OTHER_POSE,
            {
                OURS: lambda r, t, q, u: _parts(_pose(r, t) @ _pose(q, u)),
                TORCH: lambda r, t, q, u: (r @ q, (r @ u[..., None])[..., 0] + t),
            },
        ),
        "inverse of poses": Case(
            "algebra",
            POSE,
            {
                OURS: lambda r, t: _parts(_pose(r, t).inverse()),
                TORCH: lambda r, t: (r.mT, -(r.mT @ t[..., None])[..., 0]),
            },
        ),
        "adjoint of poses": Case(
            "algebra", POSE, {OURS: lambda r, t: _pose(r, t).adjoint(), TORCH: se3_adjoint}
        ),
        "nearest essential matrix": Case(
            "maps", ("any matrix",), {OURS: svdrot.epipolar.project_to_essential, TORCH: nearest_essential}
        ),
        "poses of an essential matrix": Case(
            "maps",
            ("any matrix",),
            {OURS: lambda m: _parts(svdrot.epipolar.decompose_essential(m)), TORCH: essential_poses},
        ),
    }
    for name, make in {"roma": _of_roma, "kornia": _of_kornia, "scipy": _of_scipy}.items():
        if peers[name] is not None:
            for function, theirs in make(peers[name]).items():
                found[function].functions[name] = theirs
    return found


def _pose(rotation: Tensor, translation: Tensor) -> svdrot.Transform:
    return svdrot.Transform(rotation, translation, rotation.new_ones(rotation.shape[:-2]))


def _parts(pose: svdrot.Transform) -> tuple[Tensor, Tensor]:
    """What others have, too: they know no scale."""
    return pose.rotation, pose.translation


def arguments(case: Case, name: str, batch: int) -> Iterator[Tensor]:
    """Make the arguments of a contestant: roma's quaternions have w last."""
    for shape in case.shapes:
        x = MAKERS[shape](batch)
        yield x.roll(-1, -1) if name == "roma" and "quaternion" in shape else x


def _of_roma(roma: Any) -> dict[str, Function]:
    return {
        "product of quaternions": roma.quat_product,
        "inverse of quaternions": roma.quat_inverse,
        "image of points": lambda q, v: roma.quat_action(q, v, is_normalized=False),
        "exp": roma.rotvec_to_rotmat,
        "log": roma.rotmat_to_rotvec,
        "slerp": lambda a, b: roma.unitquat_slerp(a, b, torch.tensor(SHARE)),
        "Euler to matrix": lambda angles: roma.euler_to_rotmat(SEQUENCE, angles.unbind(-1)),
        "matrix to Euler": lambda m: roma.rotmat_to_euler(SEQUENCE, m),
        "product of poses": lambda r, t, q, u: _of_rigid(roma.Rigid(r, t) @ roma.Rigid(q, u)),
        "inverse of poses": lambda r, t: _of_rigid(roma.Rigid(r, t).inverse()),
    }


def _of_rigid(pose: Any) -> tuple[Tensor, Tensor]:
    return pose.linear, pose.translation


def _of_kornia(kornia: Any) -> dict[str, Function]:
    geometry = importlib.import_module("kornia.geometry")
    conversions, Quaternion = geometry.conversions, geometry.quaternion.Quaternion
    Se3, So3 = geometry.liegroup.Se3, geometry.liegroup.So3

    return {
        "product of quaternions": lambda a, b: (Quaternion(a) * Quaternion(b)).data,
        "inverse of quaternions": lambda a: Quaternion(a).inv().data,
        "image of points": lambda q, v: So3(Quaternion(q)) * v,
        "exp": conversions.axis_angle_to_rotation_matrix,
        "log": conversions.rotation_matrix_to_axis_angle,
        "slerp": lambda a, b: Quaternion(a).slerp(Quaternion(b), SHARE).data,
        "left Jacobian": So3.left_jacobian,
        "nearest essential matrix": geometry.epipolar.project_to_essential,
        "poses of an essential matrix": geometry.epipolar.motion_from_essential,
        # By quaternions inside, and with the translation part of twists first.
        "exp of SE(3)": lambda x: (lambda pose: (pose.r.q.data, pose.t))(Se3.exp(x)),
    }


def _of_scipy(transform: Any) -> dict[str, Function]:
    """Of tensors by torch with SCIPY_ARRAY_API=1 in the environment, else by numpy. It checks no matrices."""
    rotation = transform.Rotation

    def of(q: Tensor) -> Any:
        return rotation.from_quat(q, scalar_first=True)

    return {
        "product of quaternions": lambda a, b: (of(a) * of(b)).as_quat(scalar_first=True),
        "inverse of quaternions": lambda a: of(a).inv().as_quat(scalar_first=True),
        "image of points": lambda q, v: of(q).apply(v),
        "exp": lambda v: rotation.from_rotvec(v).as_matrix(),
        "log": lambda m: rotation.from_matrix(m, assume_valid=True).as_rotvec(),
        "Euler to matrix": lambda angles: rotation.from_euler(SEQUENCE, angles).as_matrix(),
        "matrix to Euler": lambda m: rotation.from_matrix(m, assume_valid=True).as_euler(SEQUENCE),
    }


# The textbook's formulas, as one writes them down in torch -------------------------------------------------


def _hat(v: Tensor) -> Tensor:
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))


def rotation_between(a: Tensor, b: Tensor) -> Tensor:
    a, b = torch.nn.functional.normalize(a, dim=-1), torch.nn.functional.normalize(b, dim=-1)
    k = _hat(torch.linalg.cross(a, b))
    c = (a * b).sum(-1)[..., None, None]
    return torch.eye(3) + k + k @ k / (1 + c)


def look_at(eye: Tensor, target: Tensor, up: Tensor) -> Tensor:
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    return torch.stack((right, torch.linalg.cross(forward, right), forward), -2)


def swing_twist(rotation: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """By the rotation about the axis nearest to R: its sine and cosine are linear in the entries."""
    a = torch.nn.functional.normalize(axis, dim=-1)
    k, along = _hat(a), a[..., :, None] * a[..., None, :]
    sine = -(k * rotation.mT).sum((-2, -1))
    cosine = rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - (along * rotation).sum((-2, -1))
    pair = torch.nn.functional.normalize(torch.stack((cosine, sine), -1), dim=-1)[..., None, None]
    twist = along + pair[..., 0, :, :] * (torch.eye(3) - along) + pair[..., 1, :, :] * k
    return rotation @ twist.mT, twist


def left_jacobian(v: Tensor) -> Tensor:
    t = v.norm(dim=-1)[..., None, None]
    k = _hat(v)
    return torch.eye(3) + (1 - t.cos()) / t**2 * k + (t - t.sin()) / t**3 * k @ k


def se3_exp(twist: Tensor) -> tuple[Tensor, Tensor]:
    w, v = twist[..., :3], twist[..., 3:]
    t, k = w.norm(dim=-1)[..., None, None], _hat(w)
    squared = k @ k
    rotation = torch.eye(3) + t.sin() / t * k + (1 - t.cos()) / t**2 * squared
    return rotation, (left_jacobian(w) @ v[..., None])[..., 0]


def se3_log(rotation: Tensor, translation: Tensor) -> Tensor:
    t = ((rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).acos()[..., None]
    skew = rotation - rotation.mT
    w = t / (2 * t.sin()) * torch.stack((skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]), -1)
    k, half = _hat(w), t[..., None] / 2
    inverse = torch.eye(3) - k / 2 + (1 - half / half.tan()) / (4 * half**2) * k @ k
    return torch.cat((w, (inverse @ translation[..., None])[..., 0]), -1)


def se3_adjoint(rotation: Tensor, translation: Tensor) -> Tensor:
    upper = torch.cat((rotation, torch.zeros_like(rotation)), -1)
    return torch.cat((upper, torch.cat((_hat(translation) @ rotation, rotation), -1)), -2)


def nearest_essential(matrix: Tensor) -> Tensor:
    u, s, vh = torch.linalg.svd(matrix)
    return 0.5 * (s[..., 0] + s[..., 1])[..., None, None] * (u[..., :2] @ vh[..., :2, :])


def essential_poses(matrix: Tensor) -> tuple[Tensor, Tensor]:
    u, _, vh = torch.linalg.svd(matrix)
    u, vh = (x * torch.linalg.det(x)[..., None, None] for x in (u, vh))
    w = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    r, q, t = u @ w @ vh, u @ w.mT @ vh, u[..., 2]
    return torch.stack((r, r, q, q), -3), torch.stack((t, -t, -t, t), -2)
