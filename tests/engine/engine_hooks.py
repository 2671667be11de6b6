"""Hooks that several tests of whole runs use."""

from ppcls.engine.hooks import Hook


class StopAt(Hook):
    """Stop a run after a step, as Ctrl-C does."""

    def __init__(self, step):
        self.step = step

    def after_step(self, run, batch):
        if run.progress.step == self.step:
            run.stop_signal = 2
