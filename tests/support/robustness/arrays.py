"""Random numbers with what is hard in them: half turns, equal singular values, points on a line, zeros."""

import numpy as np

from .draws import Draw


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300)


def rotations(draw: Draw, *shape: int) -> np.ndarray:
    q = unit(draw.normal(*shape, 4))
    kind = draw.random.randrange(10)
    if kind == 0:
        q = np.broadcast_to([1.0, 0, 0, 0], q.shape)
    elif kind == 1:  # half turns
        q = np.concatenate((np.zeros_like(q[..., :1]), unit(q[..., 1:])), -1)
    elif kind == 2:  # half turns about an axis of coordinates
        q = np.broadcast_to(np.eye(4)[draw.random.randrange(1, 4)], q.shape)
    elif kind == 3:
        q = unit(np.array([1.0, 0, 0, 0]) + 10.0 ** -draw.random.randrange(3, 17) * q)
    elif kind == 4:  # quarter turns
        q = unit(np.broadcast_to(np.eye(4)[0] + np.eye(4)[draw.random.randrange(1, 4)], q.shape))
    w, x, y, z = np.moveaxis(q, -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def matrices(draw: Draw, m: int, n: int, *lead: int) -> np.ndarray:
    x = draw.normal(*lead, m, n)
    kind = draw.random.randrange(9)
    k = min(m, n)
    draw.definite &= kind > 5 or k <= 3  # of up to three rows each has its own choice
    if kind == 0:
        return np.zeros_like(x)
    if kind == 1:
        return x[..., :1] * x[..., :1, :]
    if kind == 2 and m == n == 3:
        return rotations(draw, *lead)
    if kind in (2, 3):  # equal singular values
        u, _, vh = np.linalg.svd(x, full_matrices=False) if x.size else (x[..., :k], None, x[..., :k, :])
        return u @ vh
    if kind == 4:
        return np.broadcast_to(-np.eye(m, n), x.shape)
    if kind == 5:
        return np.ones_like(x)
    return x


def vectors(draw: Draw, n: int, *lead: int) -> np.ndarray:
    x = draw.normal(*lead, n)
    kind = draw.random.randrange(9)
    if kind == 0:
        return np.zeros_like(x)
    if kind == 1:
        return np.broadcast_to(np.eye(n)[draw.random.randrange(n)], x.shape)
    if kind == 2:
        return unit(x)
    if kind == 3:
        return unit(x) * np.pi
    if kind == 4 and n == 6:  # two parallel directions
        return np.concatenate((x[..., :3], x[..., :1] * x[..., :3]), -1)
    if kind == 5:
        return 10.0 ** -draw.random.randrange(3, 17) * x
    return x


def clouds(draw: Draw, *shape: int) -> np.ndarray:
    x = draw.normal(*shape)
    kind = draw.random.randrange(8)
    if kind == 0 and shape[-2]:  # in one place
        return np.broadcast_to(x[..., :1, :], x.shape)
    if kind == 1:  # on a line
        return x[..., :1] * unit(draw.normal(shape[-1]))
    if kind == 2:  # on a plane
        return np.concatenate((x[..., :-1], np.zeros_like(x[..., :1])), -1)
    if kind == 3:  # far away
        return x + 1e4
    if kind == 4:  # on a grid: many equal distances
        return np.round(x)
    return x
