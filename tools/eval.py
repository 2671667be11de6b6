"""`python tools/eval.py -c FILE [-o KEY=VALUE ...]` is `ppcls eval`, also without installation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppcls.cli import main  # noqa: E402

sys.exit(main(["eval", *sys.argv[1:]]))
