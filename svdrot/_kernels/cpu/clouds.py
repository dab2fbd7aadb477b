"""Clouds on a CPU, in the order of their cells: what is around each point, features, and poses.

Numpy, since its operations wait for no other thread: on a busy machine hundreds of small ones of torch, of
two threads each, take ten times as long.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from svdrot._kernels import cpu
from svdrot._kernels.records import ALIGNED

from .loops import agreement, cells, histograms, matches, poses, sweeps

Array = NDArray[Any]

MARGIN = (
    6  # cells that a grid is wider than the cloud, so that no two within so many cells wrap onto each other
)
LARGEST = 2**62  # key
ALL = (1 << 31) - 1


class Cells(NamedTuple):
    """Means of the points in each cell (V, 3), their numbers (V,), the keys, ascending, and the grid."""

    points: Array
    counts: Array
    keys: Array
    grid: Array
    edge: float


class Around(NamedTuple):
    """How many neighbors each point has (V,), which (V, most), and the squares of their distances."""

    numbers: Array
    places: Array
    squares: Array


class Table(NamedTuple):
    """Columns of cells, and from where to where the points of each are, by open addressing."""

    columns: Array
    runs: Array
    bits: int


def grid_of(points: Array, edge: float, margin: int = MARGIN) -> Array | None:
    """First cells and widths of finite points (n, 3), n > 0; None where integers do not reach."""
    first = np.floor(points.min(0) / edge) - margin
    width = np.floor(points.max(0) / edge) - first + 1 + margin
    if not (np.abs(first) < 2.0**53).all() or not np.prod(width) < LARGEST:
        return None
    return np.concatenate((first, width)).astype(np.int64)


def count_cells(points: Array, edge: float, most: int) -> int:
    """How many cells of an edge points (n, 3) fill, or `most` if these are more."""
    grid = grid_of(points, edge)
    if grid is None:
        return most
    bits = max(4, int(2 * most).bit_length())
    table, keys, state = _empty_table(bits), np.empty(most, np.int64), np.zeros(1, np.int64)
    _call("count_cells", points, len(points), grid, edge, table, bits, keys, most, state)
    return int(state[0])


def fill_cells(points: Array, edge: float) -> Cells | None:
    """The cells of an edge that points (n, 3) fill, n > 0; None where integers do not reach."""
    grid = grid_of(points, edge)
    if grid is None:
        return None
    bits, most, state = 12, 0, np.zeros(2, np.int64)
    keys, sums = np.empty(0, np.int64), np.empty((0, 4))
    while state[0] < len(points):
        bits, most = bits + 1, 1 << bits
        keys, sums = np.resize(keys, most), np.resize(sums, (most, 4)) if len(sums) else np.empty((most, 4))
        table = _refilled(keys[: state[1]], bits)
        _call("fill_cells", points, len(points), grid, edge, table, bits, keys, most, sums, state)
    filled = int(state[1])
    order = np.argsort(keys[:filled])
    means = sums[order, :3] / sums[order, 3:]
    return Cells(means, sums[order, 3], keys[order], grid, edge)


def coarser(cloud: Cells, factor: int) -> Cells:
    """The cells of an edge that is a whole multiple: the means are those of all points, not of means."""
    edge = factor * cloud.edge
    cell = np.stack(
        (cloud.keys // cloud.grid[5] // cloud.grid[4], cloud.keys // cloud.grid[5] % cloud.grid[4]), 1
    )
    cell = np.concatenate((cell, (cloud.keys % cloud.grid[5])[:, None]), 1) + cloud.grid[:3]
    cell //= factor
    first = cell.min(0) - MARGIN
    grid = np.concatenate((first, cell.max(0) - first + 1 + MARGIN))
    keys = ((cell[:, 0] - first[0]) * grid[4] + cell[:, 1] - first[1]) * grid[5] + cell[:, 2] - first[2]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    counts = np.add.reduceat(cloud.counts[order], starts)
    sums = np.add.reduceat((cloud.points * cloud.counts[:, None])[order], starts)
    return Cells(sums / counts[:, None], counts, keys[starts], grid, edge)


def sort_into_cells(points: Array, edge: float) -> tuple[Cells, Array] | None:
    """The points themselves in the order of their cells, each with a count of 1, and that order."""
    grid = grid_of(points, edge)
    if grid is None:
        return None
    cell = np.floor(points / edge).astype(np.int64) - grid[:3]
    keys = (cell[:, 0] * grid[4] + cell[:, 1]) * grid[5] + cell[:, 2]
    order = np.lexsort((points[:, 2], keys))
    return Cells(np.ascontiguousarray(points[order]), np.ones(len(points)), keys[order], grid, edge), order


def find_around(cloud: Cells, radius: float, most: int) -> Around:
    """For each point the nearest `most` others within `radius`, in cells, at most 5."""
    offsets, heights = _columns_within(radius, cloud.grid)
    n = len(cloud.points)
    found = Around(np.empty(n, np.int64), np.empty((n, most), np.int64), np.empty((n, most)))
    arguments = (
        cloud.points,
        cloud.keys,
        n,
        offsets,
        heights,
        len(offsets),
        (radius * cloud.edge) ** 2,
        most,
    )
    _share("find_around", n, 2000, (*arguments, *found), sweeps.SCRATCH)
    return found


def fit_planes(points: Array, around: Around) -> Array:
    """Normals (V, 3) by each point and its neighbors, NaN where these determine none."""
    normals = np.empty_like(points)
    arguments = (points, around.numbers, around.places, around.places.shape[1], normals)
    _share("fit_planes", len(points), 200, arguments, 1)
    return normals


def turn_outward(points: Array, normals: Array, coarse: Array, weights: Array, reach: float) -> None:
    """Turn normals, in place, away from what is around: coarse points (m, 3) with weights."""
    columns = np.ascontiguousarray(coarse.T)
    arguments = (points, normals, columns, weights, len(coarse), 1 / reach**2)
    _share("turn_outward", len(points), len(coarse), arguments, 1)


def describe(points: Array, normals: Array, around: Around) -> Array:
    """Fast point feature histograms (V, 33)."""
    n, most = around.places.shape
    pairs, features = np.empty((n, histograms.SIZE)), np.empty((n, histograms.SIZE))
    _share("pair_histograms", n, 8 * most, (points, normals, *around, most, pairs), 1)
    _share("blend_histograms", n, 8 * most, (pairs, *around, most, features), histograms.SCRATCH)
    return features


def nearest_both_ways(a: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    """For each row of a (n, d), n > 0, the nearest row of b (m, d), m > 0, and half of the squared distance;
    then the same for b. In float32.
    """
    center = b.mean(0)
    a, b = a - center, b - center
    (n, d), m = a.shape, len(b)
    rows, stride = -(-n // matches.BLOCK) * matches.BLOCK, -(-m // matches.LANES) * matches.LANES
    memory = np.zeros(rows * (d + 2) + (d + 2 + matches.BLOCK) * stride, np.float32)
    left = memory[: rows * (d + 2)].reshape(rows, d + 2)
    right = memory[rows * (d + 2) :][: (d + 2) * stride].reshape(d + 2, stride)
    left[:n, :d], left[:n, d], left[:n, d + 1] = -a, 1, np.einsum("ij,ij->i", a, a) / 2
    right[:d, :m], right[d, :m], right[d + 1, :m] = b.T, np.einsum("ij,ij->i", b, b) / 2, 1
    there, near = np.empty(n, np.float32), np.empty(n, np.float32)
    back, near_back = np.zeros(m, np.float32), np.full(m, np.inf, np.float32)
    places = there, near, back, near_back
    _call("nearest_both_ways", memory, n, m, d + 2, stride, *places, dtype=torch.float32)
    return there.astype(np.int64), near, back.astype(np.int64), near_back


def agreement_graph(x: Array, y: Array, threshold: float) -> tuple[Array, Array]:
    """Which pairs of points x, y (n, 3) keep their distance, rows of bits, and with how many each does."""
    n, columns = len(x), [np.ascontiguousarray(value.T, np.float32) for value in (x, y)]
    graph, degrees = np.empty((n, -(-n // 64)), np.int64), np.empty(n, np.int64)
    arguments = (*columns, n, threshold**2, graph, degrees)
    _share("agreement_graph", n, n, arguments, agreement.SCRATCH, torch.float32)
    return graph, degrees


def agreeing_sets(graph: Array, seeds: Array, size: int) -> tuple[Array, Array]:
    """For each seed (s,) pairs that agree with it and most of its neighbors (s, size), and their weights."""
    members, shares = np.empty((len(seeds), size), np.int64), np.empty((len(seeds), size), np.float32)
    arguments = (graph, len(graph), seeds, size, members, shares)
    _share("agreeing_sets", len(seeds), 20 * len(graph), arguments, agreement.SCRATCH, torch.float32)
    return members, shares


def table_of(cloud: Cells) -> Table:
    """The columns of cells of a cloud, for `align_poses` and `measure_poses`."""
    column = cloud.keys // cloud.grid[5]
    starts = np.flatnonzero(np.r_[True, column[1:] != column[:-1]]) if len(column) else np.empty(0, np.int64)
    bits = max(4, int(2 * len(starts)).bit_length())
    table, own = _refilled(column[starts], bits), column[starts]
    columns, runs = np.full(1 << bits, cells.EMPTY), np.zeros((1 << bits, 2), np.int64)
    filled = table != cells.EMPTY
    columns[filled] = own[table[filled]]
    runs[filled, 0], runs[filled, 1] = starts[table[filled]], np.r_[starts[1:], len(column)][table[filled]]
    return Table(columns, runs, bits)


def align_poses(
    points: Array,
    target: Cells,
    normals: Array,
    table: Table,
    transforms: Array,
    distance: float,
    steps: int,
    tolerance: float,
) -> Array:
    """Improve transforms (h, 3, 4) of points (n, 3), in place, by steps of point-to-plane ICP.

    Returns what is known of the last step of each, rows of `records.ALIGNED`.
    """
    reports = np.empty((len(transforms), ALIGNED.size))
    arguments = (*_clouds(points, target, normals, table), transforms, reports, distance, steps, tolerance)
    _share("align_poses", len(transforms), 100 * len(points) * steps, arguments, poses.scratch(len(points)))
    return reports


def measure_poses(
    points: Array, target: Cells, normals: Array, table: Table, transforms: Array, distance: float
) -> Array:
    """Heights of moved points over the plane at the nearest point of the target, NaN without one, (h, n)."""
    heights = np.empty((len(transforms), len(points)))
    arguments = (*_clouds(points, target, normals, table), transforms, distance, heights)
    _share("measure_poses", len(transforms), 100 * len(points), arguments, 1)
    return heights


def _clouds(points: Array, target: Cells, normals: Array, table: Table) -> tuple[Any, ...]:
    return (points, len(points), target.points, normals, len(normals), target.grid, target.edge, *table)


def _columns_within(radius: float, grid: Array) -> tuple[Array, Array]:
    """Offsets of keys of the columns that hold what is within a radius, in cells, and how far up and down."""
    reach = int(np.ceil(radius))
    i, j = (x.ravel() for x in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    rest = radius**2 - np.maximum(abs(i) - 1, 0) ** 2 - np.maximum(abs(j) - 1, 0) ** 2
    near = rest >= 0
    heights = np.minimum(reach, np.sqrt(rest[near]).astype(np.int64) + 1)
    return (i[near] * grid[4] + j[near]) * grid[5], heights


def _empty_table(bits: int) -> Array:
    return np.full(1 << bits, cells.EMPTY)


def _refilled(keys: Array, bits: int) -> Array:
    """A table that holds the places of different keys: those of equal slots take the next free ones."""
    table, mask = _empty_table(bits), (1 << bits) - 1
    with np.errstate(over="ignore"):
        slots = ((keys * np.int64(cells.GOLDEN)) >> (64 - bits)) & mask
    left = np.arange(len(keys))
    while len(left):
        free = table[slots[left]] == cells.EMPTY
        table[slots[left[free]]] = left[free]
        left = left[table[slots[left]] != left]
        slots[left] = (slots[left] + 1) & mask
    return table


def _call(kernel: str, *arguments: Any, dtype: torch.dtype = torch.float64) -> None:
    """A kernel that has no rows to share."""
    cpu.load(kernel, dtype)(*map(_word, arguments), 0, 0, 1)


def _share(
    kernel: str,
    rows: int,
    numbers: int,
    arguments: tuple[Any, ...],
    scratch: int,
    dtype: torch.dtype = torch.float64,
) -> None:
    if rows:
        cpu.run_rows(kernel, dtype, rows, numbers, tuple(map(_word, arguments)), scratch, 1)


def _word(x: Any) -> Any:
    """An argument of a kernel: the address of an array, or a number."""
    if not isinstance(x, np.ndarray):
        return x
    assert x.flags.c_contiguous
    return x.ctypes.data
