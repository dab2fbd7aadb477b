from .projection import orthogonalize as orthogonalize
from .projection import projection_gap as projection_gap
from .projection import special_orthogonalize as special_orthogonalize
