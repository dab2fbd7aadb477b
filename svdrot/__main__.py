"""`python -m svdrot` is the command `svdrot`."""

import sys

from svdrot.cli import main

sys.exit(main())
