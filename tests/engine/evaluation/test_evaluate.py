"""The lines of an evaluation."""

import logging
import re

import paddle
import pytest

from ppcls.cli import main
from ppcls.data import build_loader
from ppcls.engine.evaluation.evaluate import evaluate


@pytest.mark.parametrize(("every", "shown"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4]), (4, [0, 4]), (9, [0])])
def test_a_line_is_printed_every_so_many_batches(recipe, caplog, every, shown):
    node = recipe["DataLoader"]["Eval"]
    node["sampler"]["batch_size"] = 1
    loader = build_loader(node, "Eval", seed=0)
    measure = {"": [lambda outputs, label: {"mean": outputs.mean()}]}
    with caplog.at_level(logging.INFO, "ppcls"):
        pixels = lambda batch: paddle.to_tensor(batch.image)  # noqa: E731
        found = evaluate(pixels, loader, measure, epoch=7, print_every=every, title="Own")
    lines = [record.getMessage() for record in caplog.records]
    batches = [re.match(r"\[Own\]\[Epoch 7\]\[Iter: (\d)/6\]mean: (-?\d\.\d+)", line) for line in lines]
    assert [int(match[1]) for match in batches if match] == shown
    assert lines[-1] == f"[Own][Epoch 7][Avg]mean: {found['mean']:.5f}"
    assert len(lines) == len(shown) + 1


def test_commands_print_every_print_batch_step_batches(recipe, write_recipe, tmp_path, capsys):
    recipe["Global"] |= {"epochs": 1, "print_batch_step": 4}
    recipe["DataLoader"]["Eval"]["sampler"]["batch_size"] = 1
    path = str(write_recipe(recipe))
    weights = f"Global.pretrained_model={tmp_path}/output/resnet8/latest"
    for arguments in (["train"], ["eval", "-o", weights]):
        assert main([*arguments, "-c", path]) == 0
        assert re.findall(r"\[Eval\]\[Epoch \d\]\[Iter: (\d)/6\]", capsys.readouterr().out) == ["0", "4"]
