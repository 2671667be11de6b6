"""Mining: what is kept is what the teacher is sure of, and no copy of a validation image."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import PHOTOS, distilled, slow_unless

import ppcls
from ppcls.cli import main
from ppcls.config import load_config, plain
from ppcls.data import build_dataset
from ppcls.data.near_duplicates import BITS, HashIndex, perceptual_hash
from ppcls.engine import mining as mining_module
from ppcls.engine.mining import Mining, MiningCounts, _Found, _select, mine
from ppcls.engine.run_class_names import FILE
from ppcls.errors import ConfigError, DataError
from ppcls.weights import write_params


def photo(name):
    return cv2.imread(str(PHOTOS / f"{name}.jpg"))


def distance(one, other):
    return int((perceptual_hash(one) != perceptual_hash(other)).sum())


def jpeg(pixels, quality=50):
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_copies_hash_alike_and_other_photos_do_not(name):
    pixels = photo(name)
    height, width = pixels.shape[:2]
    copies = {
        "the same": pixels,
        "recompressed": jpeg(pixels),
        "small": cv2.resize(pixels, (width // 3, height // 3), interpolation=cv2.INTER_AREA),
        "stretched": cv2.resize(pixels, (width, height * 2)),
        "brighter": np.clip(pixels * 1.2 + 10, 0, 255).astype(np.uint8),
        "cut": pixels[height // 100 : -(height // 100), width // 100 : -(width // 100)],
        "gray": cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None],
    }
    assert {
        what: distance(pixels, copy) for what, copy in copies.items() if distance(pixels, copy) > 50
    } == {}
    others = [photo(p.stem) for p in PHOTOS.glob("*.jpg") if p.stem != name]
    assert min(distance(pixels, other) for other in others) > 80


def test_an_even_image_has_a_hash():
    assert perceptual_hash(np.zeros((8, 8, 3), np.uint8)).shape == (BITS,)


@settings(max_examples=30)
@given(seed=st.integers(0, 999), m=st.integers(1, 9), n=st.integers(1, 9))
def test_the_index_finds_the_nearest(seed, m, n):
    rng = np.random.default_rng(seed)
    known, asked = (rng.choice([-1, 1], (count, BITS)).astype(np.int8) for count in (m, n))
    found, which = HashIndex(known).nearest(asked)
    table = (asked[:, None] != known[None]).sum(-1)
    assert found.tolist() == table.min(1).tolist()
    assert [table[i, w] for i, w in enumerate(which)] == found.tolist()


ROWS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.5, 0.6, 0.9])), min_size=1, max_size=40)


@given(rows=ROWS, top_k=st.none() | st.integers(1, 6))
def test_the_most_probable_of_each_class_are_kept(rows, top_k):
    found = _Found(list(range(len(rows))), [c for c, _ in rows], [p for _, p in rows])
    report = MiningCounts(len(rows))
    kept = _select(found, top_k, report)
    for label in range(4):
        members = [i for i, (c, _) in enumerate(rows) if c == label]
        best = sorted(members, key=lambda i: (-rows[i][1], i))[:top_k]
        assert [i for i in kept if rows[i][0] == label] == best  # ties in the order of the pool
        assert report.classes.get(label, 0) == len(best)
    assert report.kept + report.beyond == len(rows)


@pytest.fixture
def teacher(tmp_path, image_folder):
    """Weights of a teacher of 4 classes, which gives each to some images and is sure to different degrees."""
    paddle.seed(2)
    network = ppcls.create_model("resnet14", class_num=4)
    network.eval()
    pixels = np.stack([cv2.imread(str(p))[:, :, ::-1] for p in sorted(image_folder.glob("*.png"))])
    image = (pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.25
    with paddle.no_grad():
        logits = network(paddle.to_tensor(image)).numpy()
    scale = 1.5 / logits.std(0)
    network.fc.weight.set_value(network.fc.weight.numpy() * scale)
    network.fc.bias.set_value(-logits.mean(0) * scale)
    path = tmp_path / "teacher.pdparams"
    write_params(path, network.state_dict())
    return path


@pytest.fixture
def task(recipe, image_folder, teacher, write_recipe, tmp_path):
    """A recipe with a teacher, and a pool of 30 crops, 2 copies of validation images and a broken file."""
    recipe = distilled(recipe, DistillationDMLLoss={"model_name_pairs": [["Student", "Teacher"]]})
    recipe["Arch"]["models"][0]["Teacher"]["pretrained"] = str(teacher)
    pool = image_folder / "pool 池"
    pool.mkdir()
    rng = np.random.default_rng(3)
    for number in range(30):
        pixels = photo(["coffee", "chelsea", "rocket"][number % 3])
        y, x = rng.integers(0, min(pixels.shape[:2]) - 64, 2)
        write(pool / f"{number:02}.png", cv2.resize(pixels[y : y + 64, x : x + 64], (16, 16)))
    twins = [line.split()[0] for line in (image_folder / "val_list.txt").read_text().splitlines()[:2]]
    for number, twin in enumerate(twins):
        (pool / f"copy_{number}.jpg").write_bytes(jpeg(cv2.imread(str(image_folder / twin)), 80))
    (pool / "broken.png").write_bytes(b"\x89PNG nothing")
    return write_recipe(recipe), pool, tmp_path / "mined" / "list.txt"


def write(path, pixels):
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def probabilities(path, teacher):
    """Class and probability, found without any of the code under test but the transforms."""
    network = ppcls.create_model("resnet14", class_num=4, pretrained=str(teacher))
    network.eval()
    pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), 1), cv2.COLOR_BGR2RGB)
    image = (pixels.transpose(2, 0, 1)[None] / np.float32(255) - 0.5) / 0.25
    with paddle.no_grad():
        row = paddle.nn.functional.softmax(network(paddle.to_tensor(image.astype(np.float32)))).numpy()[0]
    return int(row.argmax()), float(row.max())


def mined(output):
    return [line.rsplit(" ", 1) for line in output.read_text(encoding="utf-8").splitlines()]


def test_a_list_of_what_the_teacher_is_sure_of(task, image_folder, teacher, capsys):
    path, pool, output = task
    known = {p.name: probabilities(p, teacher) for p in sorted(pool.glob("[0-9]*.png"))}
    threshold = sorted(p for _, p in known.values())[8]
    arguments = ["mine", "-c", str(path), "--pool", str(pool), "--output", str(output), "--top-k", "6"]
    assert main([*arguments, "--threshold", str(threshold - 1e-5)]) == 0
    rows = mined(output)
    sure = {name: c for name, (c, p) in known.items() if p >= threshold - 1e-5}
    sizes = Counter(sure.values())
    assert Counter(int(label) for _, label in rows) == {c: min(n, 6) for c, n in sizes.items()}
    for label in sizes:
        best = sorted((n for n, c in sure.items() if c == label), key=lambda n: -known[n][1])[:6]
        assert [name for name, given in rows if int(given) == label] == [f"pool 池/{name}" for name in best]
    report = json.loads((output.parent / "list.txt.json").read_text(encoding="utf-8"))
    assert report["class_names"] is None
    assert report["images"] == 33
    assert [name.rpartition("/")[2] for name, _, _ in report["duplicates"]] == ["copy_0.jpg", "copy_1.jpg"]
    assert "cannot be decoded" in report["unreadable"][str(pool / "broken.png")]
    assert report["below"] == 30 - len(sure) == 8
    assert report["kept"] == len(rows) == len(sure) - report["beyond"]
    assert f"{len(rows):>10}  kept" in capsys.readouterr().out

    before = output.read_bytes()
    assert main([*arguments, "--threshold", str(threshold - 1e-5)]) == 0
    assert output.read_bytes() == before
    assert {p.name for p in output.parent.iterdir()} == {"list.txt", "list.txt.json"}

    joined = [  # ready for training, as the second list
        f"DataLoader.UnLabelTrain={json.dumps(plain(load_config(path))['DataLoader']['Train'])}",
        f"DataLoader.UnLabelTrain.dataset.cls_label_path={output}",
        "Global.epochs=1",
    ]
    assert main(["train", "-c", str(path), *(text for o in joined for text in ("-o", o))]) == 0


def test_the_list_and_its_counts_stay_as_they_were_when_one_cannot_be_written(tmp_path, monkeypatch):
    output = tmp_path / "list.txt"
    mining_module._write(output, "a 0\n", "{}")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"list.txt", "list.txt.json"}
    write = Path.write_text

    def full(path, *rest):
        if path.name.endswith(".json"):
            raise OSError(28, "No space left on device")
        return write(path, *rest)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ConfigError, match=r"--output: cannot write .*list\.txt: No space left"):
        mining_module._write(output, "b 1\n", '{"new": 1}')
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_labels_may_be_zero_and_the_pool_a_list(task, image_folder, tmp_path):
    path, pool, output = task
    listed = tmp_path / "pool.txt"
    listed.write_text("".join(f"{pool}/{n:02}.png\n" for n in (5, 2, 9)), encoding="utf-8")
    found = mine(load_config(path, mode="eval"), Mining(str(listed), str(output), label="zero"))
    assert found.kept == 3
    assert {label for _, label in mined(output)} == {"0"}
    assert {name for name, _ in mined(output)} == {f"pool 池/{n:02}.png" for n in (2, 5, 9)}


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("relabel", ["7", "8", "11", "20"]),
        (None, ["cat", "dog fox", "emu", "fox"]),
        ("class_names", ["0-9", "10 19", "20+", "7"]),
    ],
)
@pytest.mark.parametrize("label", slow_unless(lambda label: label == "teacher", ["teacher", "zero"]))
def test_labels_are_written_as_the_training_list_writes_them(task, image_folder, kind, texts, label):
    path, pool, output = task
    mine(load_config(path), Mining(str(pool), str(output), label=label))
    classes = {name: int(number) for name, number in mined(output)}
    written = load_config(path)
    for part in (written.DataLoader.Train.dataset, written.DataLoader.Eval.dataset):
        lines = Path(part["cls_label_path"]).read_text().splitlines()
        file = image_folder / f"changed_{Path(part['cls_label_path']).name}"
        file.write_text("".join(f"{line.split()[0]}\t{texts[int(line.split()[1])]}\n" for line in lines))
        part["cls_label_path"] = str(file)
        if kind is not None:
            part[kind] = str(image_folder / "changed_train_list.txt") if kind == "relabel" else texts
    mine(written, Mining(str(pool), str(output), label=label))
    sign = " " if kind == "relabel" else "\t"
    rows = [line.rsplit(sign, 1) for line in output.read_text(encoding="utf-8").splitlines()]
    assert {name: texts.index(text) for name, text in rows} == classes
    training = Path(written.DataLoader.Train.dataset["cls_label_path"])
    joined = training.with_name("joined.txt")
    joined.write_text(training.read_text() + output.read_text(encoding="utf-8"), encoding="utf-8")
    dataset = build_dataset({**written.DataLoader.Train.dataset, "cls_label_path": str(joined)}, "Train", 4)
    found = {dataset.path(i).rpartition("/")[2]: dataset.label(i) for i in range(len(dataset))}
    assert classes.items() <= {f"pool 池/{name}": value for name, value in found.items()}.items()


def test_a_list_with_fewer_labels_than_classes_is_refused_first(task, image_folder, monkeypatch):
    path, pool, output = task
    recipe = load_config(path)
    (image_folder / "three.txt").write_text(
        "".join(f"{n}.png {label}\n" for n, label in enumerate((5, 6, 9)))
    )
    for part in (recipe.DataLoader.Train.dataset, recipe.DataLoader.Eval.dataset):
        part["relabel"] = str(image_folder / "three.txt")
    monkeypatch.setattr(mining_module, "_hash_all", None)
    with pytest.raises(ConfigError, match="labels of 3 classes, and the network has 4"):
        mine(recipe, Mining(str(pool), str(output)))


def test_a_name_that_no_list_can_hold_is_refused_before_the_teacher_is_asked(task, monkeypatch):
    path, pool, output = task
    (pool / b"bad \xff.png".decode("utf-8", "surrogateescape")).write_bytes((pool / "00.png").read_bytes())
    monkeypatch.setattr(mining_module, "_hash_all", None)
    with pytest.raises(DataError, match="the name is not UTF-8; rename the file"):
        mine(load_config(path), Mining(str(pool), str(output)))


def test_a_class_map_gives_classes_of_the_student(task, teacher, tmp_path):
    path, pool, output = task
    known = [probabilities(p, teacher)[0] for p in sorted(pool.glob("[0-9]*.png"))]
    theirs = sorted(set(known))[-1]
    (tmp_path / "map.txt").write_text(f"0 {theirs}\n1 {(theirs + 1) % 4}\n")
    changes = [
        "Arch.class_num=2",
        "Arch.models.0.Teacher.class_num=4",
        f"+Loss.Train.0.DistillationDMLLoss.class_map={tmp_path}/map.txt",
    ]
    try:
        config = load_config(path, changes, mode="eval")
    except ConfigError:
        changes = [text.removeprefix("+") for text in changes]
        config = load_config(path, changes, mode="eval")
    report = mine(config, Mining(str(pool), str(output)))
    mapped = {theirs: 0, (theirs + 1) % 4: 1}
    assert report.classes == Counter(mapped[c] for c in known if c in mapped)
    assert report.foreign == sum(c not in mapped for c in known)


def test_classes_have_names_and_the_teacher_must_have_them_in_the_same_order(task, tmp_path, capsys):
    path, pool, output = task
    names = tmp_path / "names.txt"
    names.write_text("0 a\n1 b\n2 c\n3 d\n")
    arguments = ["mine", "-c", str(path), "--pool", str(pool), "--output", str(output)]
    arguments += ["-o", f"Infer.PostProcess.class_id_map_file={names}"]
    (tmp_path / FILE).write_text("0 a\n1 b\n2 d\n3 c\n")  # beside the weights of the teacher
    assert main(arguments) == 2
    assert "Arch.models.Teacher: its weights were trained with the same classes" in capsys.readouterr().err
    assert not output.exists()
    (tmp_path / FILE).write_text("0 a\n1 b\n2 c\n3 d\n")
    assert main(arguments) == 0
    found = json.loads((output.parent / "list.txt.json").read_text(encoding="utf-8"))
    assert found["class_names"] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"top_k": 0}, "--top-k: expected at least 1"),
        ({"threshold": 1.5}, "--threshold: expected a probability"),
        ({"distance": -1}, "--distance: expected at least 0"),
        ({"network": "Teachr"}, "there is no 'Teachr' in Arch.models. Did you mean: Teacher"),
        ({"network": "Student"}, "network Student has no pretrained weights"),
        ({"image_root": "/usr/share"}, "does not lie below /usr/share"),
        ({"pool": "/nowhere"}, "/nowhere: no such file or folder"),
        ({"pool": ""}, "an empty path"),
        ({"output": ""}, "--output: expected a file to write, got an empty path"),
        ({"output": "/tmp"}, "--output: expected a file to write, got /tmp"),
        ({"threshold": 1.0}, "no image is left, nothing was written"),
    ],
)
def test_mistakes_write_nothing(task, options, text):
    path, pool, output = task
    with pytest.raises((ConfigError, DataError)) as caught:
        mine(load_config(path, mode="eval"), Mining(**{"pool": str(pool), "output": str(output), **options}))
    assert text in str(caught.value)
    assert not output.exists()


def test_a_recipe_of_one_network_is_its_own_teacher(task, recipe, teacher, write_recipe):
    _, pool, output = task
    recipe["Arch"] = {"name": "resnet14", "class_num": 4}
    recipe["Loss"] = {"Train": [{"CELoss": {}}]}
    recipe["Metric"] = {"Eval": [{"TopkAcc": {"topk": [1]}}]}
    path = write_recipe(recipe, "plain.yaml")
    with pytest.raises(ConfigError, match="Global.pretrained_model: not set"):
        mine(load_config(path, mode="eval"), Mining(str(pool), str(output)))
    config = load_config(path, [f"Global.pretrained_model={teacher}"], mode="eval")
    assert mine(config, Mining(str(pool), str(output))).kept == 30
    with pytest.raises(ConfigError, match="is one network"):
        mine(config, Mining(str(pool), str(output), network="Teacher"))
