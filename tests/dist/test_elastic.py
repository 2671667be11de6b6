"""A run that continues with more or fewer processes: the same images in every step, the same rate."""

import json
from collections import defaultdict

import elastic_worker
import numpy as np
import pytest
from launching import together
from support import distilled, tiny_recipe

from ppcls.weights import read_params

pytestmark = pytest.mark.dist
PAIR = {"model_name_pairs": [["Student", "Teacher"]]}
LOSSES = {
    "DistillationGTCELoss": {"model_names": ["Student"]},
    "DistillationKLDivLoss": {**PAIR, "temperature": 4.0},
    "DistillationPairLoss": {**PAIR, "base_loss_name": "MGDLoss", "s_key": "body", "t_key": "body"},
}


class Jobs:
    """Writes the jobs of elastic_worker.py and reads what they recorded."""

    def __init__(self, images, folder, capsys):
        self.images = images
        self.folder = folder
        self.capsys = capsys
        elastic_worker.register()

    def job(self, name, run, batch_size, *, stop=None, checkpoint=None, update_freq=1):
        """Describe a job that trains in the folder of `run`; return its file."""
        recipe = distilled(tiny_recipe(self.images, self.folder / run), **LOSSES)
        tap = {"name": "Plain", "return_patterns": ["body"]}
        recipe["Arch"]["models"] = [{"Teacher": {**tap, "width": 7}}, {"Student": tap}]
        recipe["Global"] |= {"epochs": 4, "eval_interval": 4, "update_freq": update_freq}
        recipe["DataLoader"]["Train"]["sampler"]["batch_size"] = batch_size
        if stop is not None:
            recipe["Hooks"] = [{"Stop": {"step": stop}}]
        file = self.folder / f"{name}.recipe.json"
        file.write_text(json.dumps(recipe))
        arguments = ["-c", str(file), *(["--resume", str(checkpoint)] if checkpoint else [])]
        path = self.folder / f"{name}.job.json"
        path.write_text(json.dumps({"arguments": arguments, "records": str(self.folder / name)}))
        return path

    def run_here(self, *jobs):
        """Run jobs in this process; return what they print."""
        self.capsys.readouterr()
        code = elastic_worker.run(jobs)
        printed = "".join(self.capsys.readouterr())
        assert code == 0, printed
        return printed

    def run_in_two(self, *jobs):
        """Run jobs in two processes; return what they print."""
        done = together(self.folder, [elastic_worker.__file__, *map(str, jobs)])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def steps(self, name):
        """Return the images of each step, in order, and its learning rate, by step."""
        images = defaultdict(list)
        rates = {}
        for file in sorted(self.folder.glob(f"{name}.[0-9]")):
            for step, _, index, rate in map(json.loads, file.read_text().splitlines()):
                images[step] += index
                rates[step] = rate
        return {step: (images[step], rates[step]) for step in images}

    def checkpoint(self, run, tag="latest"):
        return self.folder / run / "DistillationModel" / tag

    def same_end(self, run, other):
        mine, theirs = (read_params(self.checkpoint(name).with_suffix(".pdparams")) for name in (run, other))
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            room = 1e-6 + 1e-4 * np.abs(value).max()
            np.testing.assert_allclose(theirs[name], value, rtol=0, atol=room, err_msg=f"{other} {name}")


@pytest.fixture
def jobs(image_folder, tmp_path, capsys):
    return Jobs(image_folder, tmp_path, capsys)


@pytest.mark.slow
def test_a_run_goes_on_with_more_and_with_fewer_processes(jobs):
    """8 and 4 images in the two steps of an epoch: stopped in the second epoch, and at the end of it."""
    jobs.run_here(jobs.job("whole", "whole", 8), jobs.job("cut", "growing", 8, stop=3))
    printed = jobs.run_in_two(
        jobs.job("grown", "growing", 8, checkpoint="auto"),
        jobs.job("later", "later", 8, checkpoint=jobs.checkpoint("whole", "epoch_2")),
        jobs.job("cut_2", "shrinking", 4, stop=2),  # the other process learns of it at the next step
    )
    assert "written by 1 process, this run has 2: every step keeps its images: 1 batch of 4 images" in printed
    printed = jobs.run_here(jobs.job("shrunk", "shrinking", 4, checkpoint="auto"))
    assert "written by 2 processes, this run has 1: every step keeps its images: 2 batches of 4" in printed
    whole = jobs.steps("whole")
    assert len(whole) == 8
    assert jobs.steps("cut_2") == {step: whole[step] for step in range(3)}
    for name, run, first in (("grown", "growing", 3), ("later", "later", 4), ("shrunk", "shrinking", 3)):
        assert jobs.steps(name) == {step: whole[step] for step in range(first, 8)}, name
        jobs.same_end("whole", run)
        state = json.loads(jobs.checkpoint(run).with_suffix(".pdstates").read_text())
        assert state["step"] == 8
        assert state["batches"]["processes"] == (2 if run == "shrinking" else 1)
