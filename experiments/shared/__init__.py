"""What experiments share. They import from here and from their own folder, never from another's.

Its modules go by their names, as in `shared.run.main`: experiments have a `run`, `data` and `results` of
their own.
"""

from . import alignment as alignment
from . import clouds as clouds
from . import curves as curves
from . import data as data
from . import figures as figures
from . import heads as heads
from . import optimizers as optimizers
from . import results as results
from . import run as run
from . import settings as settings
from . import statistics as statistics
from . import timing as timing
from . import training as training
