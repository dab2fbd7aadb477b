"""By which factors the source may have to be multiplied, by votes of pairs that look alike. In numpy.

Features of cells of one size beside features of cells of another are those of clouds of different size, so
that both clouds have features at nine sizes of cells, and each size meets those of up to 1.6 times more and
less. Two pairs (x, y) and (x', y') that are right vote for |y - y'| / |x - x'| (Yang, Shi and Carlone,
"TEASER", T-RO 2021), all for one; votes of wrong pairs are spread over a wide hill, and what stands out of
it is a candidate.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from svdrot._kernels.cpu import clouds
from svdrot.registration.clouds._candidates import matched
from svdrot.registration.clouds._levels import OUTWARD, Level

Array = NDArray[Any]

STEP, LEVELS, APART = 2 ** (1 / 3), 9, 2  # of cells from one to the next, how many, and how far two may be
MOST = 250  # pairs of points of two levels, the likest first
LONG = 0.3  # extents: a pair of points that are nearer votes too vaguely
WIDTH = 0.01  # of bins of logarithms
RANGE, MARGIN = 0.7, 0.6  # how far from the ratio of the extents factors lie, and the hill beside them
BINS = round(2 * (RANGE + MARGIN) / WIDTH)
FINE, COARSE = 1.5, 15.0  # bins: standard deviations of the votes of right pairs, and of their hill
PEAK = 0.05  # logarithms: candidates are so far apart
KEPT = 8
NEAR = 1.0, 0.94, 1.06  # times the size of a start
FAR = 3.0  # median distances from the middle, which no point counts for more than


def middle_and_extent(points: Array) -> tuple[Array, float]:
    """The median of a cloud (n, 3), and the root mean square distance from it, far points as less far."""
    if not len(points):
        return np.zeros(3), 0.0
    middle = np.median(points, 0)
    with np.errstate(over="ignore"):
        far = np.linalg.norm(points - middle, axis=1)
    return middle, float(np.sqrt(np.mean(np.minimum(far, FAR * np.median(far)) ** 2)))


def ratios(x: Array, y: Array, voxel: float) -> list[float]:
    """Factors of the size of x, the likeliest first, of clouds of extent one; the last is 1 itself.

    `voxel` is the edge of the finest cells of both.
    """
    votes = np.zeros(BINS)
    both = [_pyramid(points, voxel) for points in (x, y)]
    for k, a in enumerate(both[0]):
        for b in both[1][max(0, k - APART) : k + APART + 1]:
            i, j = matched(a.features, b.features)
            votes += _standing_out(_logarithms(a.cells.points[i[:MOST]], b.cells.points[j[:MOST]]))
    middles = (np.arange(BINS) + 0.5) * WIDTH - RANGE - MARGIN
    votes[np.abs(middles) > RANGE] = 0
    found: list[float] = []
    while len(found) < KEPT and votes.max() > 0:
        best = middles[votes.argmax()]
        votes[np.abs(middles - best) < PEAK] = 0
        found.append(float(np.exp(best)))
    return [*found, 1.0]


def _pyramid(points: Array, voxel: float) -> list[Level]:
    filled = [clouds.fill_cells(points, voxel * STEP**k) for k in range(LEVELS)]
    return [Level.of(x, clouds.coarser(x, OUTWARD)) for x in filled if x is not None]


def _logarithms(x: Array, y: Array) -> Array:
    """Logarithms of the ratios of distances, for all pairs of pairs (n, 3) that are far apart."""
    i, j = np.triu_indices(len(x), 1)
    a, b = (np.linalg.norm(z[i] - z[j], axis=1) for z in (x, y))
    long = (a > LONG) & (b > LONG)
    return np.log(b[long] / a[long])


def _standing_out(logarithms: Array) -> Array:
    """How much more votes lie in each bin than around it, in standard deviations of so many."""
    counts = np.histogram(logarithms, BINS, (-RANGE - MARGIN, RANGE + MARGIN))[0].astype(float)
    fine, coarse = (np.convolve(counts, _bell(width), "same") for width in (FINE, COARSE))
    return np.maximum(fine - coarse, 0) / np.sqrt(coarse + 1)


def _bell(width: float) -> Array:
    reach = int(4 * width)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    return bell / bell.sum()
