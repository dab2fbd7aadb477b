"""Random samples of three pairs, each a hypothesis; the one that the most pairs agree with.

A batch of samples is drawn at once. Most hold a wrong pair and are dropped because an edge of the triangle
changes its length; the rest are solved together in closed form and judged by the truncated cost (MSAC). The
best is improved (local optimization), and the draws end when, at its share of inliers, a better one would
have been drawn already with probability `CONFIDENCE`.

Source:
    Fischler and Bolles, Comm. ACM 24 (1981); Torr and Zisserman, CVIU 78 (2000), MSAC; Chum, Matas and
    Kittler, DAGM 2003, LO-RANSAC.
"""

import math

import torch
from torch import Tensor

from svdrot.registration.pairs._hypotheses import Pairs, Selection, improved, take

BATCH = 1 << 15  # samples
JUDGED = 2048  # of a batch, at most
MOST = 1 << 21  # and no more than ten times the triples there are
CONFIDENCE = 0.9999
GAP = 0.02  # smallest relative gap of a sample: below it the points are near a line, and the fit is noise


def ransac(pairs: Pairs, generator: torch.Generator | None) -> Selection:
    n, device = len(pairs), pairs.x.device
    best = Selection(
        torch.zeros_like(pairs.w), torch.tensor(0, device="cpu"), torch.tensor(False, device="cpu")
    )
    most = min(MOST, 10 * n**3)
    least, needed, drawn = math.inf, float(most), 0
    while drawn < min(needed, most):
        index = _with_equal_edges(torch.randint(n, (BATCH, 3), generator=generator, device=device), pairs)
        drawn += BATCH
        sample = pairs[index[:JUDGED]]
        fits = sample.fit(sample.w)
        good = (fits.gap > GAP).nonzero()[:, 0]
        if len(good) == 0 and math.isinf(least):
            good = torch.arange(len(fits.scale), device=device)  # pairs on a line do not have others
        if len(good) == 0:
            continue
        cost, selection = improved(take(fits, good), pairs)
        if cost < least:
            least, best = cost, selection
            share = (selection.weights > 0).double().mean().item()
            needed = math.log(1 - CONFIDENCE) / math.log1p(-(min(share, 1 - 1e-9) ** 3))
    return Selection(best.weights, torch.tensor(drawn, device="cpu"), best.settled & (drawn >= needed))


def _with_equal_edges(index: Tensor, pairs: Pairs) -> Tensor:
    """Keep the triangles, rows of three indices, whose edges keep their lengths up to the threshold.

    For a similarity the ratios of the lengths count. Edges shorter than half of the threshold are dropped.
    """
    if pairs.scaled:
        a, b = (torch.stack([_edge(p, index, k) for k in range(3)], 1) for p in (pairs.x, pairs.y))
        a = a * (b.sum(1, keepdim=True) / a.sum(1, keepdim=True))
        return index[(((a - b).abs() < pairs.threshold) & (a + b > pairs.threshold)).all(1)]
    for k in range(3):  # most fail at the first edge
        a, b = _edge(pairs.x, index, k), _edge(pairs.y, index, k)
        index = index[((a - b).abs() < pairs.threshold) & (a + b > pairs.threshold)]
    return index


def _edge(points: Tensor, index: Tensor, k: int) -> Tensor:
    return torch.linalg.vector_norm(points[index[:, k]] - points[index[:, (k + 1) % 3]], dim=-1)
