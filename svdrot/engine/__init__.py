"""The engine: a formula of scalars in, kernels out. It knows nothing of rotations. See docs/formulas.md.

graph        a formula, called once with symbols, leaves a graph
words        what a formula may say beside the operators of Python
derivatives  of graphs, as graphs: reverse and forward mode
program      a graph that knows its derivatives
elementary   sin, cos, atan2, exp and log as formulas
lowering     a graph in what a machine has
cpu          the writer for CPUs: LLVM, and how its kernels are called
gpu          the writer for GPUs: Triton, and how its kernels are called
layout       how arrays lie, for both
operations   the writer for everything else: torch operations
door         from tensors to kernels and back, in every mode of torch
totals       sums and means with their gradients in one pass
maps         formulas as differentiable functions of tensors
"""

from .graph import by_dtype as by_dtype
from .maps import Map as Map
from .maps import formula as formula
from .words import absolute as absolute
from .words import atan2 as atan2
from .words import cos as cos
from .words import detached as detached
from .words import exp as exp
from .words import expm1 as expm1
from .words import floor as floor
from .words import log as log
from .words import log1p as log1p
from .words import maximum as maximum
from .words import minimum as minimum
from .words import once as once
from .words import root as root
from .words import roughly as roughly
from .words import sin as sin
from .words import sqrt as sqrt
from .words import where as where
