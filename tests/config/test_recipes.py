"""The tutorial's fragments, overrides, defaults, and what a checked config is like."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from paddle import nn

from ppcls.config import docs, load_config, plain, single
from ppcls.config.loading import read
from ppcls.errors import ConfigError
from ppcls.registry import LOSSES
from ppcls.utils.config import get_config

HERE = Path(__file__).parent
FRAGMENTS = sorted((HERE / "tutorial").glob("*.yaml"))


def _whole(fragment: str, folder: Path) -> Path:
    file = folder / f"{fragment}.yaml"
    bases = f"[{HERE / 'rest.yaml'}, {HERE / 'tutorial' / f'{fragment}.yaml'}]"
    file.write_text(f"_base_: {bases}\n", encoding="utf-8")
    return file


# ---------------------------------------------------------------- the tutorial


def test_there_are_ten_fragments() -> None:
    assert {file.stem for file in FRAGMENTS} == {
        "ssld", "dml", "udml", "afd", "dkd", "dist", "mgd", "wsl", "skd", "pefd",
    }  # fmt: skip


@pytest.mark.parametrize("file", FRAGMENTS, ids=lambda file: file.stem)
def test_a_fragment_of_the_tutorial_is_a_recipe_with_the_rest_supplied(file: Path, tmp_path: Path) -> None:
    config = load_config(_whole(file.stem, tmp_path))
    assert set(config.Arch) == set(read(file)["Arch"])
    assert plain(config.Loss.Eval) == [{"CELoss": {"weight": 1.0}}]


def test_the_values_of_the_tutorial_arrive(tmp_path: Path) -> None:
    config = load_config(_whole("ssld", tmp_path))
    assert config.Arch.models[0].Teacher == {
        "name": "ResNet50_vd",
        "class_num": 1000,
        "pretrained": True,
        "use_ssld": True,
    }
    assert plain(config.Arch.freeze_params_list) == [True, False]
    assert config.Arch.pretrained_list is None
    loss = {"weight": 1.0, "model_name_pairs": [["Student", "Teacher"]]}
    assert plain(config.Loss.Train) == [{"DistillationDMLLoss": loss}]


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("Global.seed=1", "Global.seed", 1),
        ("Global.output_dir=2024-1-1", "Global.output_dir", "2024-1-1"),
        ("Global.pretrained_model=output/a=b/best_model", "Global.pretrained_model", "output/a=b/best_model"),
        ("Arch.infer_model_name=Teacher", "Arch.infer_model_name", "Teacher"),
        ("Global.infer_model_name=Teacher", "Arch.infer_model_name", "Teacher"),
        ("Infer.infer_imgs=x.jpg", "Infer.infer_imgs", "x.jpg"),
        ("Infer.infer_imgs=[x.jpg, y.png]", "Infer.infer_imgs.1", "y.png"),
        ("Arch.models.1.Student.pretrained=a/path", "Arch.models.1.Student.pretrained", "a/path"),
        ("DataLoader.Train.sampler.batch_size=8", "DataLoader.Train.sampler.batch_size", 8),
        ("DataLoader.Train.loader.num_workers=0", "DataLoader.Train.loader.num_workers", 0),
        ("AMP.use_amp=false", "AMP.use_amp", False),
        ("AMP.use_amp=true", "AMP.use_amp", True),
        ("Optimizer.lr.warmup_epoch=0", "Optimizer.lr.warmup_epoch", 0),
        ("Global.log_ranks='0,1'", "Global.log_ranks.1", 1),
        ("Global.log_ranks=2", "Global.log_ranks.0", 2),
        ("Global.device=gpu:1", "Global.device", "gpu:1"),
        ("DataLoader.Train.sampler.batch_size=32*2", "DataLoader.Train.sampler.batch_size", 64),
    ],
)
def test_overrides_of_keys_given_and_not_given(tmp_path: Path, text: str, path: str, value: Any) -> None:
    assert (
        OmegaConf.select(OmegaConf.create(load_config(_whole("ssld", tmp_path), [text]).to_dict()), path)
        == value
    )


def test_the_last_override_wins(tmp_path: Path) -> None:
    config = load_config(_whole("ssld", tmp_path), ["Global.epochs=2", "Global.epochs=3"])
    assert config.Global.epochs == 3


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        (
            "Arch.models.0.Teacher.models.1.LinearTransformTeacher.keys.3=blocks[33]",
            "Arch.models.0.Teacher.models.1.LinearTransformTeacher.keys.3",
            "no network before it in the chain gives 'blocks[33]'. Did you mean: blocks[3]",
        ),
        ("Loss.Train.2.AFDLoss.teacher_keys.0=qurey", "Loss.Train.2.AFDLoss.teacher_keys.0", "query"),
        (
            "Arch.models.1.Student.freeze_params_list=[False]",
            "Arch.models.1.Student.freeze_params_list",
            "1 entries for 2 networks",
        ),
        (
            "Arch.models.1.Student.models.0.ResNet18.return_patterns.0=block[0]",
            "Arch.models.1.Student.models.0.ResNet18.return_patterns.0",
            "blocks",
        ),
    ],
)
def test_mistakes_inside_a_chain_of_networks(tmp_path: Path, text: str, path: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(_whole("afd", tmp_path), [text])
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith(f"  {path}: ")
    assert words in line


# ---------------------------------------------------------------- what comes back


def test_defaults_are_filled_in(write_recipe: Callable[..., Path]) -> None:
    file = write_recipe(("set", "Global", None), ("drop", "Infer"), ("set", "DataLoader.Train.loader", None))
    config = load_config(file)
    assert config.Global.epochs == 100
    assert config.Global.device == "auto"
    assert plain(config.Global.image_shape) == [3, 224, 224]
    assert config.Global.seed is None
    assert config.AMP.use_amp is False
    assert config.EMA is None
    assert config.Infer.transforms == config.DataLoader.Eval.dataset["transform_ops"]
    assert config.DataLoader.UnLabelTrain is None
    loader = config.DataLoader.Train.loader
    assert (loader.num_workers, loader.use_shared_memory, loader.use_processes) == (4, True, False)


def test_lists_of_defaults_are_not_shared(write_recipe: Callable[..., Path]) -> None:
    first = plain(load_config(write_recipe(("set", "Global", None))))
    first["Global"]["image_shape"].append(0)
    assert plain(load_config(write_recipe(("set", "Global", None)))["Global"]["image_shape"]) == [3, 224, 224]


def test_the_section_amp_switches_it_on_unless_it_says_no(write_recipe: Callable[..., Path]) -> None:
    assert load_config(write_recipe(("set", "AMP", {"level": "O2"}))).AMP.use_amp is True
    assert load_config(write_recipe(("set", "AMP", {"use_amp": False}))).AMP.use_amp is False
    assert load_config(write_recipe(("set", "AMP", None))).AMP.use_amp is False


def test_both_spellings_of_a_node_come_back_as_the_builders_read_them(
    write_recipe: Callable[..., Path],
) -> None:
    config = load_config(
        write_recipe(
            ("set", "Loss.Eval", [{"name": "CELoss", "weight": 2.0}, {"CELoss": None}]),
            ("set", "Optimizer", {"SGD": {"lr": {"Cosine": {"learning_rate": 0.1}}}}),
            ("set", "Infer.PostProcess", {"Topk": {"topk": 3}}),
        )
    )
    assert plain(config.Loss.Eval) == [{"CELoss": {"weight": 2.0}}, {"CELoss": {}}]
    assert plain(config.Optimizer) == {"name": "SGD", "lr": {"name": "Cosine", "learning_rate": 0.1}}
    assert plain(config.Infer.PostProcess) == {"name": "Topk", "topk": 3}


def test_a_schedule_without_a_name_is_constant(write_recipe: Callable[..., Path]) -> None:
    config = load_config(write_recipe(("set", "Optimizer.lr", {"learning_rate": "1.0/10"})))
    assert plain(config.Optimizer.lr) == {"name": "ConstLR", "learning_rate": 0.1}


def test_a_resolved_config_is_a_recipe_again(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    config = load_config(write_recipe(), ["Global.epochs=7"])
    config.save(tmp_path / "again.yaml")
    assert load_config(tmp_path / "again.yaml") == config


def test_checking_leaves_random_numbers_and_parameter_names_alone(write_recipe: Callable[..., Path]) -> None:
    import paddle

    def next_name() -> int:
        return int(paddle.nn.Conv2D(1, 1, 1).weight.name.removeprefix("conv2d_").split(".")[0])

    file = write_recipe()
    load_config(file)
    before = next_name()
    paddle.seed(3)
    expected = paddle.rand([2]).tolist()
    paddle.seed(3)
    load_config(file)
    assert paddle.rand([2]).tolist() == expected
    assert next_name() == before + 1


# ---------------------------------------------------------------- others


def test_plugins_are_checked_by_the_names_of_their_options(
    write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def outside_loss(
        model_name_pair: list[str], s_key: str, t_key: str = "logits", gain: float = 1.0
    ) -> nn.Layer:
        """Stand for a loss of another package."""
        return nn.MSELoss()

    assert "CELoss" in LOSSES
    LOSSES.register("OutsideLoss")(outside_loss)
    options: dict[str, Any] = {"model_name_pair": ["Student", "Teacher"], "s_key": "blocks[2]"}
    edits = [
        ("set", "Loss.Train", [{"OutsideLoss": options}]),
        ("drop", "Arch.models.0.Teacher.return_patterns"),
    ]
    load_config(write_recipe(*edits))
    options |= {"model_name_pair": ["Student", "Teachr"], "s_key": "blocks[1]", "gian": 2}
    with pytest.raises(ConfigError) as caught:
        load_config(write_recipe(*edits))
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert [line.split(": ")[0] for line in lines] == [
        "Loss.Train.0",
        "Loss.Train.0.OutsideLoss.model_name_pair.1",
        "Loss.Train.0.OutsideLoss.s_key",
    ]
    assert "Did you mean: gain?" in lines[0]
    assert "Did you mean: Teacher?" in lines[1]
    assert "Did you mean: blocks[2]?" in lines[2]


@pytest.mark.parametrize("node", [{"transform_ops": []}, {"transform_ops": [], "image_root": "photos"}])
def test_a_forgotten_name_is_named(node: dict) -> None:
    with pytest.raises(ConfigError, match=r"DataLoader.Train.dataset.*`name: ...` is missing beside"):
        single(node, "DataLoader.Train.dataset")


def test_single_and_plain() -> None:
    assert single({"CELoss": None}, "Loss.0") == ("CELoss", {})
    assert single(OmegaConf.create({"name": "SGD", "lr": 1}), "Optimizer") == ("SGD", {"lr": 1})
    for wrong in (None, "CELoss", {}, {"A": 1}, {"A": None, "B": None}, {3: None}, {"name": 3}, [1]):
        with pytest.raises(ConfigError, match=r"^Loss\.0: "):
            single(wrong, "Loss.0")
    node = {"a": [1, OmegaConf.create({"b": (1, 2)})]}
    assert plain(node) == {"a": [1, {"b": [1, 2]}]}
    assert plain(node)["a"] is not node["a"]
    with pytest.raises(ConfigError, match=r"a: .*missing"):
        plain(OmegaConf.create({"a": "${missing}"}))


def test_get_config_is_the_name_of_paddleclas(
    write_recipe: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    file = write_recipe()
    with caplog.at_level(logging.INFO, "ppcls"):
        config = get_config(str(file), overrides=["Global.epochs=2"], show=True)
    assert config.Global.epochs == 2
    assert "epochs: 2" in caplog.text


def test_the_written_reference_is_up_to_date() -> None:
    written = HERE.parents[1] / "docs" / "config.md"
    text = docs.render()
    assert written.read_text(encoding="utf-8") == text, "run: python -m ppcls.config.docs > docs/config.md"
    for key in (
        "`epochs`",
        "`use_amp`",
        "`decay`",
        "`num_workers`",
        "`infer_imgs`",
        "`DataLoader.UnLabelTrain`",
    ):
        assert key in text


def test_reading_a_config_module_imports_no_paddle() -> None:
    code = "import sys, ppcls.config, ppcls.config.docs; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
