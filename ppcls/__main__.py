"""``python -m ppcls`` is the command ``ppcls``."""

import sys

from ppcls.cli import main

sys.exit(main())
