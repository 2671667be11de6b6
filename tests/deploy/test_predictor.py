"""The deployed network answers as the network in memory does, and says what is wrong with a folder."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
import yaml
from paddle import nn

from ppcls.data import build_transforms
from ppcls.deploy import Predictor
from ppcls.engine.export import export_network
from ppcls.errors import ConfigError, DataError, WeightsError
from ppcls.runtime import Program

TRANSFORMS = [
    {"DecodeImage": {"to_rgb": True, "channel_first": False}},
    {"ResizeImage": {"size": [8, 8]}},
    {"NormalizeImage": {"scale": 1 / 255, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "order": ""}},
    {"ToCHWImage": None},
]


class Net(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 4)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc(nn.functional.relu(x).flatten(1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Net]:
    paddle.seed(1)
    folder, net = tmp_path_factory.mktemp("export"), Net()
    labels = folder / "four.txt"
    labels.write_text("0 zero\n1 one, first\n2 two\n3 three\n")
    description = {
        "Global": {"model_name": "Net", "class_num": 4},
        "PreProcess": {"transform_ops": TRANSFORMS},
        "PostProcess": {"name": "Topk", "topk": 2, "class_id_map_file": str(labels)},
    }
    for formats in ("paddle", "legacy", "both"):
        export_network(net, folder / formats, (3, 8, 8), formats=formats, inference_yml=description)
    export_network(net, folder / "logits", (3, 8, 8), softmax=False, inference_yml=description)
    return folder, net


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.PNG", "c.jpg", "d.webp", "e.bmp"):
        pixels = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(pixels, (20, 16), interpolation=cv2.INTER_NEAREST))
    return folder


def expected(net: Net, files: list[Path]) -> np.ndarray:
    chain = build_transforms(TRANSFORMS)
    batch = np.stack([chain(file.read_bytes()) for file in files])
    return nn.functional.softmax(net(paddle.to_tensor(batch))).numpy()


@pytest.mark.parametrize("kind", ["paddle", "legacy", "both", "logits"])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_answers_as_the_network_in_memory(
    exported: tuple[Path, Net], photos: Path, kind: str, batch_size: int
) -> None:
    folder, net = exported
    files = sorted(photos.iterdir())
    results = Predictor(folder / kind, batch_size=batch_size, device="cpu", threads=1).predict(photos)
    assert [r["file_name"] for r in results] == [str(f) for f in files]
    names = ["zero", "one, first", "two", "three"]
    for result, row in zip(results, expected(net, files), strict=True):
        ids = np.argsort(-row)[:2]
        assert result["class_ids"] == ids.tolist()
        assert result["label_names"] == [names[i] for i in ids]
        np.testing.assert_allclose(result["scores"], row[ids], atol=2e-5)


def test_ways_to_name_images(exported: tuple[Path, Net], photos: Path, tmp_path: Path) -> None:
    predictor = Predictor(exported[0] / "paddle", batch_size=3)
    everything = predictor.predict(photos)
    (tmp_path / "list.txt").write_text("\n".join(str(p) for p in sorted(photos.iterdir())))
    assert predictor.predict(str(tmp_path / "list.txt")) == everything
    assert predictor.predict(sorted(photos.iterdir())) == everything
    assert predictor.predict(str(photos / "*")) == everything
    assert predictor.predict(str(photos / "a.png")) == everything[:1]
    array = cv2.cvtColor(cv2.imread(str(photos / "a.png")), cv2.COLOR_BGR2RGB)
    mixed = predictor.predict([photos / "c.jpg", array])
    assert mixed[0] == everything[2]
    assert mixed[1] == everything[0] | {"file_name": "array 1"}
    content = (photos / "c.jpg").read_bytes()
    assert predictor.predict([array, content])[1] == everything[2] | {"file_name": "image 1"}
    assert predictor.predict([]) == []
    for nothing in (photos / "z.png", str(photos / "*.gif")):
        with pytest.raises(DataError, match="no such file"):
            predictor.predict(nothing)


def test_an_unreadable_image_costs_no_other_its_result(exported: tuple[Path, Net], photos: Path) -> None:
    good = Predictor(exported[0] / "paddle", batch_size=4).predict(photos)
    (photos / "b.PNG").write_bytes(b"no image")
    (photos / "f.jpg").write_bytes(b"")  # the last one, alone in its batch
    with pytest.raises(DataError, match=r"b\.PNG"):
        Predictor(exported[0] / "paddle", batch_size=4).predict(photos)
    results = Predictor(exported[0] / "paddle", batch_size=5, on_error="skip").predict(
        [photos, photos / "missing.png", np.zeros((2, 2), np.uint8)]
    )
    assert [r.get("error") is None for r in results] == [True, False, True, True, True, False, False, False]
    kept = [r for r in results if "error" not in r]
    assert kept == [r for r in good if not r["file_name"].endswith("b.PNG")]
    for result, name in zip(results[5:], ["f.jpg", "missing.png", "array 2"], strict=True):
        assert result["file_name"].endswith(name)
        assert name in result["error"]
        assert result["class_ids"] == []


def copy_of(exported: tuple[Path, Net], tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in (exported[0] / "both").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_folder_can_be_moved(exported: tuple[Path, Net], photos: Path, tmp_path: Path) -> None:
    moved = copy_of(exported, tmp_path)
    (moved / "inference.json").unlink()  # what older programs wrote alone
    assert Predictor(moved).predict(photos) == Predictor(exported[0] / "paddle").predict(photos)


def test_broken_folders(exported: tuple[Path, Net], tmp_path: Path) -> None:
    folder = copy_of(exported, tmp_path)
    params = folder / "inference.pdiparams"
    content = params.read_bytes()
    params.write_bytes(content[:-1])
    with pytest.raises(WeightsError, match=rf"has {len(content) - 1} bytes, .* says {len(content)}"):
        Predictor(folder)
    params.write_bytes(bytes([content[0] ^ 1]) + content[1:])  # one bit, same size
    with pytest.raises(WeightsError, match=r"does not have the SHA-256 that its inference\.yml says"):
        Predictor(folder)
    params.write_bytes(b"")
    with pytest.raises(WeightsError, match="is empty"):
        Predictor(folder)
    params.unlink()
    with pytest.raises(WeightsError, match="is missing"):
        Predictor(folder)
    params.write_bytes(content)
    for program in ("inference.json", "inference.pdmodel"):
        (folder / program).unlink()
    with pytest.raises(WeightsError, match="neither inference.json nor inference.pdmodel"):
        Predictor(folder)
    with pytest.raises(WeightsError, match="does not exist"):
        Predictor(tmp_path / "nowhere")


def test_exports_of_earlier_versions_are_compared_by_size(
    exported: tuple[Path, Net], photos: Path, tmp_path: Path
) -> None:
    folder = copy_of(exported, tmp_path)
    file = folder / "inference.yml"
    content = yaml.safe_load(file.read_text())
    del content["Global"]["params_sha256"], content["ppcls"]
    content["PreProcess"] = {"transform_ops": TRANSFORMS}
    content["PostProcess"] = {"main_indicator": "Topk", "Topk": content["PostProcess"]["Topk"]}
    file.write_text(yaml.safe_dump(content))
    assert Predictor(folder).predict(photos) == Predictor(exported[0] / "both").predict(photos)
    with (folder / "inference.pdiparams").open("ab") as params:
        params.write(b"x")
    with pytest.raises(WeightsError, match="not copied"):
        Predictor(folder)


def test_descriptions_of_other_exporters(exported: tuple[Path, Net], photos: Path, tmp_path: Path) -> None:
    folder = copy_of(exported, tmp_path)
    file = folder / "inference.yml"
    content = yaml.safe_load(file.read_text())
    content = {key: content[key] for key in ("PreProcess", "PostProcess")}  # they decode to RGB
    file.write_text(yaml.safe_dump(content))
    assert Predictor(folder).predict(photos) == Predictor(exported[0] / "both").predict(photos)


def test_arrays_need_no_decoder_however_it_is_written(exported: tuple[Path, Net], tmp_path: Path) -> None:
    folder = copy_of(exported, tmp_path)
    file = folder / "inference.yml"
    content = yaml.safe_load(file.read_text())
    content["PreProcess"]["transform_ops"] = [
        {"name": "DecodeImage"},
        *(op for op in content["PreProcess"]["transform_ops"] if "DecodeImage" not in op),
    ]
    file.write_text(yaml.safe_dump(content))
    image = np.full((8, 8, 3), 99, np.uint8)
    assert Predictor(folder).predict([image]) == Predictor(exported[0] / "both").predict([image])


def test_an_export_that_was_killed_while_it_was_moved(
    exported: tuple[Path, Net], photos: Path, tmp_path: Path
) -> None:
    folder = copy_of(exported, tmp_path)
    want = Predictor(folder).predict(photos)
    half = folder / ".inference.new"
    half.mkdir()
    names = [path.name for path in folder.iterdir() if path.is_file()]
    for name in ("inference.yml", "inference.pdiparams", "inference.json"):
        (folder / name).rename(half / name)
        (folder / name).write_bytes(b"of another network")
    (half / "files.json").write_text(json.dumps(names))
    assert Predictor(folder).predict(photos) == want
    for name in ("inference.yml", "inference.pdiparams"):
        (half / name).replace(folder / name)
        assert Predictor(folder).predict(photos) == want
    assert copy.deepcopy(Predictor(folder)).predict(photos) == want


def test_broken_descriptions(exported: tuple[Path, Net], tmp_path: Path) -> None:
    folder = copy_of(exported, tmp_path)
    file = folder / "inference.yml"
    content = yaml.safe_load(file.read_text())
    for change, message in (
        ({"PreProcess": {}}, "PreProcess.transform_ops: expected a list"),
        ({"PreProcess": {"transform_ops": [{"DecodImage": {}}]}}, "Did you mean: DecodeImage"),
        ({"PostProcess": {"main_indicator": "Topk"}}, "PostProcess has no Topk"),
        ({"PostProcess": {"main_indicator": None}}, "PostProcess has no None"),
        ({"PostProcess": ["Topk"]}, "PostProcess: expected a map"),
        ({"PostProcess": {"Topk": 5}}, "PostProcess.Topk: expected a map"),
        ({"PreProcess": None}, "PreProcess.transform_ops: expected a list"),
        ({"PreProcess": {"transform_ops": []}}, "PreProcess.transform_ops: expected a list"),
        ({"ppcls": ["x"]}, "ppcls: expected a map"),
        ({"ppcls": {"DecodeImage": 7}}, "ppcls: expected a map"),
        ({"Global": [1]}, "Global: expected a map"),
    ):
        file.write_text(yaml.safe_dump(content | change))
        with pytest.raises(ConfigError, match=message):
            Predictor(folder)
    file.write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        Predictor(folder)
    file.unlink()
    with pytest.raises(ConfigError, match=r"inference\.yml is missing.*ppcls export"):
        Predictor(folder)


def test_threads_get_the_answers_to_their_own_images(exported: tuple[Path, Net]) -> None:
    predictor = Predictor(exported[0] / "paddle", threads=1)
    images = [np.full((8, 8, 3), level, np.uint8) for level in (0, 80, 160, 240)]
    want = [predictor.predict(image)[0]["scores"] for image in images]
    assert len({tuple(scores) for scores in want}) == 4
    wrong: list[int] = []

    def work(place: int) -> None:
        wrong.extend(predictor.predict(images[place])[0]["scores"] != want[place] for _ in range(800))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert (sum(wrong), len(wrong)) == (0, 3200)


def test_copies_answer_as_the_original(exported: tuple[Path, Net], photos: Path) -> None:
    predictor = Predictor(exported[0] / "paddle", batch_size=2, threads=1)
    want = predictor.predict(photos)
    for other in (pickle.loads(pickle.dumps(predictor)), copy.deepcopy(predictor)):
        assert other.predict(photos) == want
    assert predictor.predict(photos) == want
    program = Program(exported[0] / "paddle" / "inference.json", threads=2, mkldnn=False)
    assert pickle.loads(pickle.dumps(program))._options == program._options


def test_a_copy_of_a_relative_folder_opens_it_from_anywhere(
    exported: tuple[Path, Net], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported[0])
    predictor = Predictor("paddle", threads=1)
    want, packed = predictor.predict(photos), pickle.dumps(predictor)
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(packed).predict(photos) == want


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_goes_on_while_another_thread_was_predicting(exported: tuple[Path, Net]) -> None:
    predictor = Predictor(exported[0] / "paddle", threads=1)
    image = np.full((8, 8, 3), 80, np.uint8)
    want = predictor.predict(image)
    with predictor._run._lock:  # what a thread holds that does not exist in the child
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if predictor.predict(image) == want else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert predictor.predict(image) == want


def test_wrong_arguments(exported: tuple[Path, Net]) -> None:
    for arguments, message in (
        ({"batch_size": 0}, "batch_size"),
        ({"on_error": "ignore"}, "on_error"),
        ({"batch_size": "4"}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"batch_size": None}, "batch_size"),
        ({"threads": 0}, "threads"),
        ({"threads": "a"}, "threads"),
        ({"device": "tpu"}, "auto, cpu, gpu"),
        ({"device": None}, "auto, cpu, gpu"),
    ):
        with pytest.raises(ConfigError, match=message):
            Predictor(exported[0] / "paddle", **arguments)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (None, "images: expected a file.*NoneType"),
        (5, "images: expected a file.*int"),
        (b"photo.jpg", "image 0: cannot be decoded: it is text"),
        ({"a.jpg": 1}, "images: expected a file.*dict"),
        ([None], "image 0: expected a file.*NoneType"),
        ([["a.jpg"]], "image 0: expected a file.*list"),
        ("", "an empty path"),
        (
            [np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 3), np.uint8)],
            r"array 1: uint8 of shape \[0, 4, 3\]",
        ),
        (np.zeros((16, 16, 4), np.uint8), "array 0: NormalizeImage"),
    ],
)
def test_what_is_no_image_is_named(exported: tuple[Path, Net], images: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Predictor(exported[0] / "paddle", device="cpu", threads=1).predict(images)  # type: ignore[arg-type]


def test_needs_nothing_of_what_trains(exported: tuple[Path, Net], photos: Path) -> None:
    code = (
        "import os, signal, sys; signal.signal(signal.SIGTERM, lambda *_: print('ended')); "
        "from ppcls.deploy import Predictor; "
        f"Predictor({str(exported[0] / 'paddle')!r}).predict({str(photos)!r}); "
        "print(sorted(m for m in sys.modules if m.split('.')[:2] in"
        " [['ppcls', n] for n in ('arch', 'loss', 'engine', 'optimizer', 'metric')])); "
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["[]", "ended"]
