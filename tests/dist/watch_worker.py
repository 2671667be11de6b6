"""Train a recipe, then evaluate what it saved with a report: `watch_worker.py RECIPE WEIGHTS REPORT`."""

import sys

from ppcls.cli import main

if __name__ == "__main__":
    recipe, weights, report = sys.argv[1:]
    code = main(["train", "-c", recipe])
    evaluate = ["eval", "-c", recipe, "-o", f"Global.pretrained_model={weights}", "--report", report]
    sys.exit(code or main(evaluate))
