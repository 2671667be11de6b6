"""The JSON schema for editors: it is current, accepts every recipe of ours and refuses mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest

from ppcls.config.docstrings import option_documents, summary
from ppcls.config.json_schema import render
from ppcls.config.json_types import type_schema
from ppcls.config.yaml_text import parse_yaml, read_yaml

ROOT = Path(__file__).parents[2]
WRITTEN = ROOT / "docs" / "recipe.schema.json"
RECIPES = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    schema = json.loads(WRITTEN.read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def as_json(value: Any) -> Any:
    """Return a YAML value as an editor sees it: keys are text."""
    if isinstance(value, dict):
        return {str(key): as_json(inner) for key, inner in value.items()}
    return [as_json(inner) for inner in value] if isinstance(value, list) else value


def test_the_committed_schema_is_current() -> None:
    advice = "run: ppcls validate --schema > docs/recipe.schema.json (without plug-ins installed)"
    assert WRITTEN.read_text(encoding="utf-8") == render(plugins=False), advice


def test_every_recipe_satisfies_it(validator: jsonschema.Draft7Validator) -> None:
    assert len(RECIPES) > 50
    wrong = {
        str(file.relative_to(ROOT)): error.message
        for file in RECIPES
        if (error := jsonschema.exceptions.best_match(validator.iter_errors(as_json(read_yaml(file)))))
    }
    assert not wrong


@pytest.mark.parametrize(
    "text",
    [
        "_base_: [a.yaml, b.yaml]",
        "_base_: a.yaml\nArch: {class_num: 10}",
        "Global: {epochs: 2*30, device: 'gpu:1', output_dir: '${oc.env:HOME}/out', save_interval: -1}",
        "Global: {seed: '${oc.decode:${oc.env:SEED}}', eval_during_train: '${oc.decode:${oc.env:X}}'}",
        "Arch: {name: ResNet50, pretrained: True, use_sync_bn: True, infer_add_softmax: False}",
        "Arch: {name: '${other.name}', class_num: '${Arch.class_num}'}",
        "Arch: {models: {0: {Teacher: {pretrained: False}}}}",
        "Arch: {name: DistillationModel, models: [{T: {name: ResNet50, mean: [0.5, 0.5, 0.5]}}]}",
        "Loss: {Train: [{CELoss: }, {name: CELoss, weight: 0.5}]}",
        "Loss: {Train: {0: {CELoss: {epsilon: 0.1}}}, Eval: }",
        "Loss: {Train: [{CELoss: {weight: {name: LinearWarmup, value: 1.0, epochs: 20}}}]}",
        "Optimizer: {name: Momentum, clip_grad: , lr: {name: Cosine, learning_rate: 1e-4, last_epoch: -1}}",
        "Optimizer: [{SGD: {lr: {learning_rate: 0.1}}}, {name: Adam, scope: Student}]",
        "DataLoader: {Train: {dataset: {name: Cifar10, download: False}}}",
        "Infer: {transforms: [{NormalizeImage: {scale: 1.0/255.0, order: ''}}], PostProcess: {name: Topk}}",
        "DataLoader: {Train: {dataset: {name: ImageNetDataset, transform_ops: '${Infer.transforms}'}}}",
    ],
)
def test_what_recipes_may_say(validator: jsonschema.Draft7Validator, text: str) -> None:
    validator.validate(as_json(parse_yaml(text, "recipe")))


@pytest.mark.parametrize(
    "text",
    [
        "Globl: {epochs: 1}",
        "Global: {epoch: 1}",
        "Global: {epochs: 0}",
        "Global: {epochs: ten}",
        "Global: {device: tpu}",
        "Global: {image_shape: [3, 224]}",
        "Global: {use_multilabel: True}",
        "AMP: {level: O3}",
        "Arch: {name: ResNet19}",
        "Arch: {name: ResNet18, clas_num: 3}",
        "Arch: {name: ResNet18, use_ssld: 'yes'}",
        "Arch: {clas_num: 3}",
        "Arch: {name: DistillationModel, models: [{T: {name: ResNet18, clas_num: 3}}]}",
        "Arch: {name: ResNet18, data_format: NHWC}",
        "Loss: {Train: [{CELos: {}}]}",
        "Loss: {Train: [{CELoss: {epsilo: 0.1}}]}",
        "Loss: {Train: [{name: CELoss, epsilo: 0.1}]}",
        "Loss: {Train: [{CELoss: {reduction: none}}]}",
        "Loss: {Train: [{CELoss: {}, GTCELoss: {}}]}",
        "Loss: {Train: {0: {CELos: {}}}}",
        "Loss: {Test: []}",
        "Optimizer: {name: Momentum, lr: {name: Cosin}}",
        "Infer: {transforms: [{RandFlipImage: {flip_code: 5}}]}",
        "DataLoader: {Train: {dataset: {name: Cifar10, download: True, imag: 1}}}",
        "_base_: {a: 1}",
    ],
)
def test_mistakes_violate_it(validator: jsonschema.Draft7Validator, text: str) -> None:
    assert not validator.is_valid(as_json(parse_yaml(text, "recipe")))


def test_names_and_options_are_explained() -> None:
    schema = json.loads(WRITTEN.read_text(encoding="utf-8"))
    losses = schema["definitions"]["loss"]["else"]["properties"]
    assert all(entry["description"] for entry in losses.values())
    assert "label smoothing" in json.dumps(schema["definitions"]["loss CELoss"]["properties"]["epsilon"])
    names = schema["definitions"]["network"]["then"]["properties"]["name"]["anyOf"]
    enum = next(entry for entry in names if "enum" in entry)
    assert len(enum["enum"]) == len(enum["enumDescriptions"]) > 100


def test_docstrings_are_read() -> None:
    def component(size: int = 1, word: str = "a") -> None:
        """Do one thing.

        And more.

        Args:
            size: how large
                it is: in pixels.
            word: what to say.

        Raises:
            ConfigError: never.
        """

    assert summary(component) == "Do one thing."
    assert option_documents(component) == {"size": "how large it is: in pixels.", "word": "what to say."}
    assert option_documents(int.__init__) == {}


@pytest.mark.parametrize(
    ("wanted", "good", "bad"),
    [
        (int, [1, "2*3", "${a.b}"], [1.5, "two", None, True, [1]]),
        (float | None, [1, 1.5, "1/255", None], ["x", [], {}]),
        (bool, [True, "${a}"], [1, "True"]),
        (Literal["a", None], ["a", None, "${a}"], ["b", 1]),
        (list[int], [[1], ["1*2"], {"0": 3}], [["x"], 1, {"a": 1}]),
        (tuple[int, str], [[1, "a"]], [[1], ["x", "a"]]),
        (dict[str, int], [{"a": 1}], [[1], "x"]),
        (Any, [1, "a", None, []], []),
    ],
)
def test_types(wanted: Any, good: list[Any], bad: list[Any]) -> None:
    validator = jsonschema.Draft7Validator(type_schema(wanted))
    assert [value for value in good if not validator.is_valid(value)] == []
    assert [value for value in bad if validator.is_valid(value)] == []
