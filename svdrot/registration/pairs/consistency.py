"""Pairs that agree with each other.

A rigid motion keeps distances, so |x_i - x_j| and |y_i - y_j| are equal for two right pairs, and by chance
for few others.

Every pair, or `SEEDS` of them drawn at random, is a seed. Of the pairs that agree with it, those that agree
with most of the others make its set: wrong pairs agree with a right one, but not with each other. Replicator
dynamics reduce the set to a clique, whose least-squares fit is the seed's hypothesis, and the one of least
truncated cost is improved. Time grows like seeds times pairs, memory like their sum.

Source:
    Chen et al., "SC²-PCR", CVPR 2022, arXiv 2203.14453 (votes of the second order); Bai et al., "PointDSC",
    CVPR 2021, arXiv 2103.05465 (a hypothesis for each seed); Albarelli, Rodolà and Torsello, CVPR 2010 (the
    dynamics, of evolutionary games).
"""

import torch

from svdrot.registration.pairs._hypotheses import Pairs, Selection, consistent_sets, improved

SEEDS = 2048
MEMBERS = 24  # of a set, at most


def consistency(pairs: Pairs, generator: torch.Generator | None) -> Selection:
    shuffled = pairs[torch.randperm(len(pairs), generator=generator, device=pairs.x.device)]
    seeds = torch.arange(min(SEEDS, len(pairs)), device=pairs.x.device)
    members, shares = consistent_sets(seeds, MEMBERS, shuffled)
    sets = shuffled[members]
    return improved(sets.fit(sets.w * shares), pairs)[1]
