r"""Muon and its relatives: optimizers that step along the polar factor of the momentum of a matrix.

A step of every one of them is a chain of small functions,

    gradient -> momentum -> (equilibrate | clip_outliers | gate) -> newton_schulz -> step size,

and they differ in the middle only, in their `direction`. What is not a matrix goes, in a parameter group with
`algorithm="adamw"`, to AdamW in the same optimizer; `split_parameters` makes the groups for a module.
"""

from .muon import ALGORITHMS as ALGORITHMS
from .muon import STEP_SIZES as STEP_SIZES
from .muon import Muon as Muon
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
