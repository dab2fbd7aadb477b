r"""Muon and its relatives: optimizers that step along the polar factor of the momentum of a matrix.

A step of every one of them is a chain of small functions,

    gradient -> momentum -> (equilibrate | clip_outliers | gate) -> newton_schulz -> step size,

and they differ in two hooks: `momentum`, and `direction` for what comes after it. `Stack` is what hooks get,
and `per_row` and its like declare what they remember. What is not a matrix goes, in a parameter group with
`algorithm="adamw"`, to AdamW in the same optimizer; `split_parameters` makes the groups for a module.

Example:
    >>> import torch
    >>> from svdrot.optim import Muon, per_row
    >>> class RowNormalized(Muon):
    ...     direction_state = {"row_square": per_row}
    ...
    ...     def direction(self, update, stack):
    ...         found = super().direction(update, stack)
    ...         square = stack.state["row_square"].lerp_(found.square().mean(-1, keepdim=True), 0.05)
    ...         return found / (square.sqrt() + 1e-10)
    >>> p = torch.nn.Parameter(torch.zeros(2, 3))
    >>> p.grad = torch.ones(2, 3)
    >>> optimizer = RowNormalized([p], lr=0.02)
    >>> optimizer.step()
    >>> optimizer.state[p]["row_square"].shape
    torch.Size([1, 2, 1])
"""

from .hooks import Stack as Stack
from .hooks import StateMaker as StateMaker
from .hooks import elementwise as elementwise
from .hooks import per_column as per_column
from .hooks import per_entry as per_entry
from .hooks import per_matrix as per_matrix
from .hooks import per_row as per_row
from .hooks import update_only as update_only
from .muon import ALGORITHMS as ALGORITHMS
from .muon import STEP_SIZES as STEP_SIZES
from .muon import Muon as Muon
from .riemannian import RiemannianAdam as RiemannianAdam
from .riemannian import RiemannianSGD as RiemannianSGD
from .variants import EQUILIBRATED as EQUILIBRATED
from .variants import ROOT as ROOT
from .variants import MiMuon as MiMuon
from .variants import MuonEq as MuonEq
from .variants import clip_outliers as clip_outliers
from .variants import equilibrate as equilibrate
from .variants import shape_schedule as shape_schedule
from .variants import singular_gap as singular_gap
from .views import MatrixView as MatrixView
from .views import conv as conv
from .views import heads as heads
from .views import split_parameters as split_parameters
