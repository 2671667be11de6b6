"""Between log lines the host reads no tensor, so that it never waits for the device."""

from pathlib import Path

import pytest
import yaml
from counted_reads import count_reads
from launching import together
from support import distilled, tiny_recipe

EVERY = 7  # batches between log lines
LINES = [0, 7, 14]  # steps after which a line is printed
PAIR = {"model_name_pairs": [["Student", "Teacher"]]}


def many_steps(images, output, processes=1):
    """Return a recipe of 20 steps in one epoch, with several losses, EMA and clipping of gradients."""
    listed = images / "train_list.txt"
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[:10] * 4 * processes))
    recipe = distilled(
        tiny_recipe(images, output),
        DistillationGTCELoss={"model_names": ["Student"]},
        DistillationKLDivLoss={**PAIR, "temperature": 4.0},
        DistillationDKDLoss={**PAIR},
        DistillationWSLLoss={**PAIR},
        DistillationDISTLoss={**PAIR, "gather": True},
    )
    recipe["Global"] |= {"epochs": 1, "print_batch_step": EVERY, "eval_during_train": False}
    recipe["Optimizer"]["clip_norm"] = 5.0
    recipe["EMA"] = {"decay": 0.99}
    recipe["DataLoader"]["Train"]["sampler"]["batch_size"] = 2
    return recipe


def check(steps):
    assert len(steps) == 20
    for number, places in enumerate(steps):
        if number - 1 not in LINES:  # the line after a step belongs to the next one
            assert places == [], f"step {number}"
    assert any(steps)  # the log lines: they are counted, so others would be too


def test_one_process_reads_only_for_log_lines(image_folder, tmp_path):
    check(count_reads(many_steps(image_folder, tmp_path / "output")))


@pytest.mark.dist
@pytest.mark.slow
def test_two_processes_read_only_for_log_lines(image_folder, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(many_steps(image_folder, tmp_path / "output", 2)))
    done = together(tmp_path, [str(Path(__file__).with_name("counted_reads.py")), str(path)])
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in (0, 1):
        check(yaml.safe_load(path.with_suffix(f".{rank}.yaml").read_text()))
