"""Train recipe.yaml and press Ctrl-C when the second of the three batches of epoch 2 is logged.

Run it in a folder that holds recipe.yaml and images/: ``python write_run.py``.
"""

import logging
import os
import signal
import sys

from ppcls.cli import main


class WatchedRecord(logging.LogRecord):
    """Sends SIGINT to this process when the one line is logged."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if "[Train][Epoch 2/3][Iter: 1/3]" in self.getMessage():
            os.kill(os.getpid(), signal.SIGINT)


logging.setLogRecordFactory(WatchedRecord)
sys.exit(main(["train", "-c", "recipe.yaml"]))
