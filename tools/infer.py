"""`python tools/infer.py -c FILE [-o KEY=VALUE ...]` is `ppcls infer --print log`, also if not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppcls.cli import main  # noqa: E402

sys.exit(main(["infer", "--print", "log", *sys.argv[1:]]))
