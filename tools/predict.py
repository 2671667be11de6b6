"""`python tools/predict.py --model-dir DIR IMAGE ...` is `ppcls predict`, also without installation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppcls.cli import main  # noqa: E402

sys.exit(main(["predict", *sys.argv[1:]]))
