"""What scripts written for PaddleClas import and call, and find here: the list of what is promised."""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from support import PHOTOS

import ppcls
from ppcls.config import complete_config, load_config, plain
from ppcls.engine import Engine
from ppcls.errors import ConfigError, WeightsError
from ppcls.weights import write_params

PROMISED = {
    "ppcls.utils": "config logger save_load get_config init_model save_model",
    "ppcls.utils.config": "AttrDict get_config override_config parse_args parse_config print_config",
    "ppcls.utils.logger": "debug error info init_logger warning",
    "ppcls.utils.save_load": "init_model load_dygraph_pretrain load_dygraph_pretrain_from_url save_model",
    "ppcls.data": "build_dataloader build_postprocess create_operators preprocess transform",
    "ppcls.data.postprocess": "Topk",
    "ppcls.data.preprocess": "transform DecodeImage ResizeImage CropImage RandCropImage RandFlipImage "
    "NormalizeImage ToCHWImage AutoAugment RandAugment RandomErasing TimmAutoAugment MixupOperator "
    "CutmixOperator",
    "ppcls.data.preprocess.ops.operators": "DecodeImage ResizeImage CropImage NormalizeImage ToCHWImage",
    "ppcls.arch": "build_model DistillationModel TheseusLayer backbone",
    "ppcls.arch.backbone": "ResNet50 PPLCNet_x1_0 MobileNetV3_large_x1_0",
    "ppcls.loss": "build_loss CombinedLoss CELoss DistillationCELoss DistillationGTCELoss "
    "DistillationDMLLoss "
    "DistillationDistanceLoss DistillationKLDivLoss DistillationDKDLoss DistillationRKDLoss MGDLoss AFDLoss",
    "ppcls.metric": "build_metrics TopkAcc DistillationTopkAcc",
    "ppcls.optimizer": "build_optimizer build_lr_scheduler Momentum AdamW Cosine Piecewise",
    "ppcls.engine": "Engine",
    "ppcls.engine.engine": "Engine",
}


@pytest.mark.parametrize("module", PROMISED)
def test_names_can_be_imported(module: str) -> None:
    found = importlib.import_module(module)
    for name in PROMISED[module].split():
        assert getattr(found, name) is not None
    with pytest.raises(AttributeError, match="NoSuchName"):
        found.NoSuchName  # noqa: B018


def test_the_page_names_what_is_promised() -> None:
    page = (Path(__file__).parents[1] / "docs" / "coming_from_paddleclas.md").read_text("utf-8")
    table = page.partition("| module | names |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| `")]
    assert len(rows) == 10
    for modules, names in rows:
        promised = {
            name for module in re.findall(r"`([\w.]+)`", modules) for name in PROMISED[module].split()
        }
        assert set(re.findall(r"`(\w+)`", names)) <= promised | {"train", "eval", "infer", "export", "Arch"}


def test_a_config_is_read_and_written(write_recipe: Callable[..., Path], recipe: dict, caplog: Any) -> None:
    from ppcls.utils import config as conf

    path = str(write_recipe(recipe))
    args = conf.parse_args(["-c", path, "-o", "Global.epochs=7", "-o", "Arch.class_num=4"])
    with caplog.at_level(logging.INFO, "ppcls"):
        config = conf.get_config(args.config, overrides=args.override, show=True)
    assert "epochs: 7" in caplog.text
    assert config["Global"]["epochs"] == config.Global.epochs == 7
    config["Global"]["epochs"] = 1
    config.Global.seed = 5
    config["Infer"]["PostProcess"] = {"name": "Topk", "topk": 2}
    config.DataLoader.Train.sampler.batch_size = 6
    assert (config.Global.epochs, config["Infer"]["PostProcess"]["topk"]) == (1, 2)
    conf.override_config(
        config, ["Global.epochs=3", "DataLoader.Eval.dataset.transform_ops.0.DecodeImage.to_rgb=False"]
    )
    assert config.Global.epochs == 3
    assert config.DataLoader.Eval.dataset.transform_ops[0].DecodeImage.to_rgb is False
    for lr in ({"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": 1}, {"name": "ConstLR"}):
        conf.override_config(config, [f"Optimizer.lr={json.dumps(lr)}"])
        assert plain(config)["Optimizer"]["lr"] == lr  # replaced, without keys of the one before
    raw = conf.parse_config(path)
    assert raw.Arch.name == "resnet8"
    assert "EMA" not in raw
    tree = {"Global": {"epochs": 1}}
    assert conf.override_config(tree, ["Global.epochs=2"]) is tree
    assert tree["Global"]["epochs"] == 2


def test_the_logger_writes_lines_of_the_usual_form(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from ppcls.utils import logger

    logger.init_logger(log_file=str(tmp_path / "log" / "train.log"))
    logger.info("epoch %d", 3)
    logger.warning("careful")
    logger.debug("not shown")
    text = capsys.readouterr().out
    assert "ppcls INFO: epoch 3" in text
    assert "not shown" not in text
    lines = (tmp_path / "log" / "train.log").read_text().splitlines()
    assert [line.partition("] ")[2] for line in lines] == ["ppcls INFO: epoch 3", "ppcls WARNING: careful"]


def test_weights_are_loaded_and_saved(tmp_path: Path) -> None:
    from ppcls.utils.save_load import init_model, load_dygraph_pretrain, save_model

    nets = [ppcls.create_model("resnet8", class_num=4) for _ in range(3)]
    save_model(nets[0], None, {}, str(tmp_path), model_name="resnet8", prefix="best")
    path = str(tmp_path / "resnet8" / "best")
    load_dygraph_pretrain(nets[1], path)
    init_model({"pretrained_model": path, "checkpoints": None}, nets[2])
    for net in nets[1:]:
        for name, value in nets[0].state_dict().items():
            np.testing.assert_array_equal(net.state_dict()[name].numpy(), value.numpy())
    init_model({}, nets[2])
    with pytest.raises(WeightsError, match="no weights file"):
        load_dygraph_pretrain(nets[1], str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="expected the path"):
        load_dygraph_pretrain(nets[1])
    with pytest.raises(ConfigError, match=r"resume that run with Engine\(config\)\.train"):
        init_model({"checkpoints": path}, nets[1])


def test_weights_of_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ppcls.utils import save_load
    from ppcls.weights import pretrained

    net = ppcls.create_model("resnet8", class_num=4)
    write_params(tmp_path / "w.pdparams", net.state_dict())
    asked: list[str] = []
    folder = "https://x.y/imagenet_pretrained"  # of which the name stays as it is
    monkeypatch.setattr(pretrained, "fetch", lambda url: asked.append(url) or tmp_path / "w.pdparams")
    for ssld in (False, True):
        save_load.load_dygraph_pretrain_from_url(net, f"{folder}/N_pretrained.pdparams", use_ssld=ssld)
    assert asked == [f"{folder}/N_pretrained.pdparams", f"{folder}/N_ssld_pretrained.pdparams"]
    with pytest.raises(ConfigError, match=r"_pretrained\.pdparams, got 'https://x\.y/.*/N\.pdparams'"):
        save_load.load_dygraph_pretrain_from_url(net, f"{folder}/N.pdparams", use_ssld=True)
    assert len(asked) == 2


def test_operators_are_called_with_the_image_alone(recipe: dict) -> None:
    from ppcls.data import build_transforms, create_operators, transform
    from ppcls.data.preprocess import CropImage, DecodeImage
    from ppcls.data.preprocess.ops.operators import NormalizeImage, ResizeImage, ToCHWImage

    content = sorted(PHOTOS.glob("*.jpg"))[0].read_bytes()
    numbers = {"scale": 1 / 255, "mean": [0.5] * 3, "std": [0.25] * 3, "order": ""}
    nodes = [
        {"DecodeImage": {"to_rgb": True}},
        {"ResizeImage": {"resize_short": 40}},
        {"CropImage": {"size": 32}},
        {"NormalizeImage": numbers},
        {"ToCHWImage": None},
    ]
    want = build_transforms(nodes).chw(content)
    np.testing.assert_array_equal(transform(content, create_operators(nodes)), want)
    by_hand = [
        DecodeImage(to_rgb=True),
        ResizeImage(resize_short=40),
        CropImage(size=32),
        NormalizeImage(**numbers),
        ToCHWImage(),
    ]
    np.testing.assert_array_equal(transform(content, by_hand), want)
    assert create_operators(None) == []
    with pytest.raises(ConfigError, match=r"transforms\.1: .*NoSuch"):
        create_operators([nodes[0], {"NoSuch": {}}])


def test_a_dataloader_gives_images_and_labels(recipe: dict, write_recipe: Callable[..., Path]) -> None:
    from ppcls.data import build_dataloader
    from ppcls.utils.config import get_config, parse_config

    path = str(write_recipe(recipe))
    for config in (get_config(path), parse_config(path)):
        loader = build_dataloader(config["DataLoader"], "Eval", paddle.CPUPlace(), False)
        batches = list(loader)
        assert len(batches) == len(loader) == 2
        assert [list(image.shape) for image, _ in batches] == [[5, 3, 16, 16], [1, 3, 16, 16]]
        assert all(isinstance(value, paddle.Tensor) for batch in batches for value in batch)
        labels = np.concatenate([batch[1].numpy() for batch in batches]).ravel()
        assert labels.tolist() == [loader.dataset.label(place) for place in range(6)]
        assert len(list(loader())) == 2
    orders = [
        [batch[1].numpy().ravel().tolist() for batch in loader]
        for loader in [build_dataloader(recipe["DataLoader"], "Train", seed=seed) for seed in (1, 1, 2)]
    ]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("mode", ["Test", "train"])
def test_a_dataloader_that_is_not_there_is_named(recipe: dict, mode: str) -> None:
    from ppcls.data import build_dataloader

    with pytest.raises(
        ConfigError, match=f"the section DataLoader of a recipe, with {mode} in it, got Train"
    ):
        build_dataloader(recipe["DataLoader"], mode)
    for whole in (recipe, None, "recipe.yaml"):
        with pytest.raises(ConfigError, match="the section DataLoader of a recipe, with Train in it"):
            build_dataloader(whole, "Train")


@pytest.mark.parametrize("mode", ["trian", "test", None])
def test_an_engine_of_an_unknown_mode(recipe: dict, write_recipe: Callable[..., Path], mode: str) -> None:
    for config in (recipe, {}, load_config(write_recipe(recipe))):
        with pytest.raises(ConfigError, match=f"unknown mode '?{mode}'?, expected one of train"):
            Engine(config, mode)


def test_every_pass_over_a_dataloader_is_another_epoch(recipe: dict) -> None:
    from ppcls.data import build_dataloader

    loader = build_dataloader(recipe["DataLoader"], "Train", seed=1)
    first, second = ([batch[1].numpy().ravel().tolist() for batch in loader] for _ in range(2))
    assert sorted(sum(first, [])) == sorted(sum(second, []))
    assert first != second


def test_a_network_loss_metric_and_optimizer_from_a_whole_config(
    recipe: dict, write_recipe: Callable[..., Path]
) -> None:
    from ppcls.arch import build_model
    from ppcls.loss import CELoss, build_loss
    from ppcls.metric import build_metrics
    from ppcls.optimizer import build_lr_scheduler, build_optimizer
    from ppcls.utils.config import get_config

    config = get_config(str(write_recipe(recipe)))
    for arguments in ((config,), (config, "eval"), (config["Arch"],), (recipe,)):
        assert build_model(*arguments).registered_name == "resnet8"
    model = build_model(config, mode="train")
    loss, metric = build_loss(config["Loss"]["Train"]), build_metrics(config["Metric"]["Eval"])
    optimizer, schedule = build_optimizer(config["Optimizer"], 2, 3, [model, loss])
    assert build_lr_scheduler(config["Optimizer"]["lr"], 2, 3).get_lr() == schedule.get_lr() == 0.05
    image, label = paddle.rand([4, 3, 32, 32]), paddle.to_tensor([[0], [1], [2], [3]])
    output = model(image)
    found = loss(output, label)
    np.testing.assert_allclose(
        found["loss"].item(), paddle.nn.functional.cross_entropy(output, label).item(), rtol=1e-6
    )
    assert isinstance(CELoss(epsilon=0.1), paddle.nn.Layer)
    assert set(metric(output, label)) == {"top1", "top2"}
    before = model.fc.weight.numpy().copy()
    found["loss"].backward()
    optimizer.step()
    assert (model.fc.weight.numpy() != before).any()


def test_the_network_of_an_engine_is_what_its_commands_use(
    recipe: dict, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    from ppcls.engine import Engine
    from ppcls.utils.config import get_config

    path = str(write_recipe(recipe))
    engine = Engine(get_config(path), mode="eval")
    model = engine.model
    assert engine.model is model
    results = []
    for bias in ([9.0, 0, 0, 0], [0, 9.0, 0, 0]):  # a script fills it in; no weights are named
        model.fc.weight.set_value(paddle.zeros_like(model.fc.weight))
        model.fc.bias.set_value(paddle.to_tensor(bias))
        results.append(engine.eval()["top1"])
    assert not model.training
    labels = [
        int(line.split()[-1])
        for line in Path(recipe["DataLoader"]["Eval"]["dataset"]["cls_label_path"]).read_text().splitlines()
    ]
    assert results == [pytest.approx(labels.count(0) / 6), pytest.approx(labels.count(1) / 6)]

    trained = Engine(get_config(path, ["Global.epochs=1"]), mode="train")
    start = trained.model.fc.weight.numpy().copy()
    network = trained.model
    trained.train()
    assert trained.model is network
    assert (network.fc.weight.numpy() != start).any()
    best = str(tmp_path / "output" / "resnet8" / "latest")
    again = Engine(get_config(path, [f"Global.pretrained_model={best}"]), mode="eval").model
    np.testing.assert_array_equal(again.fc.weight.numpy(), network.fc.weight.numpy())


def test_a_part_of_a_recipe_gets_defaults(recipe: dict, tmp_path: Path) -> None:
    from ppcls.engine import Engine

    part = {key: recipe[key] for key in ("Global", "Arch", "DataLoader", "Metric")}
    engine = Engine(part, mode="eval")
    assert engine.config["Global"]["eval_interval"] == 1
    assert engine.config["AMP"]["use_amp"] is False
    assert set(engine.model.state_dict()) == set(ppcls.create_model("resnet8").state_dict())
    assert 0 <= engine.eval()["top1"] <= 1
    with pytest.raises(ConfigError, match=r"Optimizer: missing; train needs it") as caught:
        Engine(part, mode="train")
    assert "Loss.Train: missing" in str(caught.value)
    with pytest.raises(ConfigError, match=r"no option 'class_nums'\. Did you mean: class_num\?"):
        Engine({**part, "Arch": {"name": "resnet8", "class_nums": 4}}, mode="eval")
    with pytest.raises(ConfigError, match="expected a configuration, got 'recipe.yaml'"):
        Engine("recipe.yaml", mode="eval")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda c: c["Global"].update({"epochs": "abc"}), r"Global\.epochs: expected a whole number"),
        (lambda c: c["Global"].update({"epochs": -3}), r"Global\.epochs: expected 1 or more"),
        (lambda c: c["Global"].update({"plugins": "./x.py"}), r"Global\.plugins: expected a list of strings"),
        (lambda c: c["Global"].update({"plugins": [3]}), r"Global\.plugins\.0: expected a string, got 3"),
        (lambda c: c["Loss"].update({"Train": [{"CELos": None}]}), r"Loss\.Train\.0: unknown loss 'CELos'"),
        (lambda c: c["Arch"].update({"class_nums": 3}), r"Did you mean: class_num\?"),
        (lambda c: c["DataLoader"]["Train"]["sampler"].update({"batch_size": "4x"}), "batch_size: expected"),
        (lambda c: c["Optimizer"]["lr"].update({"learning_rate": []}), "learning_rate: expected a number"),
        (lambda c: c["DataLoader"].update({"Eval": None}), r"DataLoader\.Eval: missing"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("load", ["load_config", "get_config"])
def test_what_is_written_into_a_loaded_config_is_checked(
    load: str, write: Callable[[Any], None], says: str, recipe: dict, write_recipe: Callable[..., Path]
) -> None:
    from ppcls.utils.config import get_config

    config = {"load_config": load_config, "get_config": get_config}[load](str(write_recipe(recipe)))
    assert complete_config(config, "train") == plain(config)
    write(config)
    with pytest.raises(ConfigError, match=says):
        complete_config(config, "train")
