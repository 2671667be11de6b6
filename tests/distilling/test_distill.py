"""One call from class folders to a student: the steps, teachers of every kind, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import paddle
import pytest
from paddle.nn import functional as F
from support import PHOTOS, slow_unless

import ppcls
from ppcls.api import distill
from ppcls.arch import build_model
from ppcls.cli import main
from ppcls.config import load_config
from ppcls.deploy import Predictor
from ppcls.distilling import steps
from ppcls.distilling.estimate import in_words
from ppcls.distilling.find_teacher import find_teacher
from ppcls.distilling.request import Request, digest_of, open_project
from ppcls.distilling.result import DistillationResult, measure_of
from ppcls.distilling.steps import split_overrides
from ppcls.distilling.teacher import Preprocessing
from ppcls.engine import Engine
from ppcls.engine.from_run import load_run
from ppcls.errors import ConfigError, DataError, PpclsError, WeightsError
from ppcls.report.runs import find_runs, read_run

SETTINGS = ["Global.device=cpu", "Global.export_format=paddle"]
TINY = {"student": "resnet8", "epochs": 1, "seed": 1, "overrides": SETTINGS}


def write_classes(root: Path, names: list[str], count: int = 5, side: int = 32) -> Path:
    """Write class folders of crops, a photo for each class."""
    photos = [cv2.imread(str(path)) for path in sorted(PHOTOS.glob("*.jpg"))]
    rng = np.random.default_rng(0)
    for photo, name in zip(photos, names, strict=False):
        (root / name).mkdir(parents=True)
        for number in range(count):
            y, x = rng.integers(0, photo.shape[0] - side), rng.integers(0, photo.shape[1] - side)
            cv2.imwrite(str(root / name / f"{number}.png"), photo[y : y + side, x : x + side])
    return root


@pytest.fixture(scope="session")
def first(tmp_path_factory):
    """Class folders, and a distillation with everything that can be asked for; made once."""
    home = tmp_path_factory.mktemp("first")
    data = write_classes(home / "pets", ["cat", "dog", "golden fish"])
    result = distill(data, "resnet8", out=home / "out", baseline=True, export=home / "exported", **TINY)
    return data, result


def test_a_call_trains_teacher_baseline_and_student_and_exports_it(first):
    data, result = first
    assert [path.name for path in find_runs(result.project)] == ["distill", "student", "teacher"]
    assert (result.student, result.teacher, result.method) == ("resnet8", "resnet8", "GTCE + DKD")
    run = read_run(result.folder)
    assert result.accuracy == run.best_metrics["top1"]
    assert result.teacher_accuracy == read_run(result.project / "output/teacher").best_metrics["top1"]
    assert result.gain == pytest.approx(result.accuracy - result.baseline_accuracy)
    assert result.report == result.folder / "report.html"
    assert result.report.is_file()
    found = Predictor(result.exported).predict([str(data / "dog" / "0.png")])
    assert set(found[0]["label_names"]) == {"cat", "dog", "golden fish"}
    teacher = load_config(result.project / "distill.yaml").arch.find("Teacher")
    assert teacher.pretrained == str(result.project / "output/teacher/best_model")


@pytest.mark.parametrize(
    ("by", "metrics", "measure"),
    [
        ("top2 of Student", {"loss": 1.0, "top2": 0.9, "top1": 0.5}, "top1"),
        ("top2 of Student", {"loss": 1.0, "top2": 0.9}, "top2"),
        ("loss of Student", {"loss": 1.0}, "loss"),
        ("", {}, None),
    ],
)
def test_an_accuracy_is_top1_whatever_chose_the_best_evaluation(by, metrics, measure):
    run = SimpleNamespace(progress=SimpleNamespace(best_by=by), best=None, best_metrics=metrics)
    assert measure_of(run) == measure


def test_a_result_says_what_it_measures():
    given = {"student": "s", "teacher": "t", "method": "KD", "project": Path("p"), "folder": Path("f")}
    top2 = DistillationResult(**given, accuracy=0.9, baseline_accuracy=0.8, measure="top2")
    assert [row[1:] for row in top2.rows()] == [("top2 80.00 %", ""), ("top2 90.00 %", "+10.00")]
    loss = DistillationResult(**given, accuracy=0.5, baseline_accuracy=0.75, measure="loss")
    assert [row[1:] for row in loss.rows()] == [("loss 0.75000", ""), ("loss 0.50000", "+0.25000")]


def test_the_result_shows_itself(first):
    _, result = first
    text = str(result)
    assert f"{100 * result.accuracy:.2f} %" in text
    assert "resnet8 alone" in text
    page = result._repr_html_()
    assert page.count("<tr>") == 4
    assert f"{100 * result.accuracy:.2f} %" in page


@pytest.mark.parametrize(
    ("setting", "recipe"),
    [("Arch.models.0.Teacher.pretrained", "distill"), ("student:Arch.pretrained", "student")],
)
def test_mistakes_of_later_steps_show_before_the_first_training(
    first, tmp_path, monkeypatch, setting, recipe
):
    data, _ = first
    monkeypatch.setattr(Engine, "train", None)
    monkeypatch.setattr("ppcls.api.announce", lambda steps: None)
    options = {**TINY, "overrides": [*SETTINGS, f"{setting}=nowhere"], "out": tmp_path / "out"}
    with pytest.raises(PpclsError, match=rf"{recipe}\.yaml: .*no weights file .*nowhere"):
        distill(data, "resnet8", baseline=recipe == "student", **options)
    assert not (tmp_path / "out/output").exists()


def test_runs_of_a_distillation_are_compared(first, tmp_path):
    _, result = first
    found = ppcls.compare(result.project)
    assert {row["network"] for row in found.as_dicts()} == {"resnet8"}
    assert len(found.rows) == 3
    assert str(found) in found._repr_html_().replace("&gt;", ">")
    assert found.write(tmp_path / "compare.html").read_text().startswith("<!")


def test_a_finished_call_is_repeated_without_training(first, monkeypatch):
    data, result = first
    monkeypatch.setattr(Engine, "train", None)
    again = distill(data, "resnet8", out=result.project, baseline=True, **TINY)
    assert (again.accuracy, again.baseline_accuracy) == (result.accuracy, result.baseline_accuracy)
    assert distill(result.project, overrides=["Global.seed=1", *SETTINGS]).accuracy == result.accuracy


def test_a_finished_training_on_other_images_is_refused(first, tmp_path, monkeypatch):
    _, result = first
    copied = tmp_path / "copy"
    shutil.copytree(result.project, copied)
    for recipe in copied.rglob("*.yaml"):
        recipe.write_text(recipe.read_text().replace(str(result.project), str(copied)))
    monkeypatch.setattr(Engine, "train", None)
    assert distill(copied, overrides=["Global.seed=1", *SETTINGS]).accuracy == result.accuracy
    lists = [(copied / name).read_text().splitlines() for name in ("train_list.txt", "val_list.txt")]
    (copied / "train_list.txt").write_text("\n".join([*lists[0][1:], lists[1][0]]))
    (copied / "val_list.txt").write_text("\n".join([*lists[1][1:], lists[0][0]]))
    with pytest.raises(
        ConfigError, match="teacher is finished, and was trained or evaluated on other images"
    ):
        distill(copied, overrides=["Global.seed=1", *SETTINGS])


def test_a_weights_file_may_be_named_without_its_suffix_from_any_folder(first, monkeypatch):
    _, result = first
    monkeypatch.chdir(result.project)
    weights = "output/teacher/best_model"
    request = Request("x", weights, teacher_network="resnet8")
    assert request.absolute.teacher == str(result.project / weights)
    assert Request("x", "resnet8").absolute.teacher == "resnet8"


def test_validation_may_lack_a_class_of_training(first, tmp_path):
    data, _ = first
    shutil.copytree(data, tmp_path / "pets/train")
    shutil.copytree(data / "dog", tmp_path / "pets/val/dog")
    request = Request(str(tmp_path / "pets"), "resnet8", student="resnet8", epochs=1)
    (*_, step) = steps.steps_of(open_project(request, tmp_path / "out", None), [], baseline=False)
    assert steps._images(step.config) == (15, 5)


def test_every_seed_has_the_same_split(first, tmp_path):
    data, _ = first
    lists = []
    for seed in (None, 1, 2):
        folder = tmp_path / str(seed)
        open_project(Request(str(data), "resnet8", student="resnet8", epochs=1, seed=seed), folder, None)
        lists.append({path.name: path.read_text() for path in folder.glob("*list*.txt")})
    assert lists[0]
    assert lists[0] == lists[1] == lists[2]


def test_images_that_came_later_are_counted(first, tmp_path, monkeypatch):
    data, _ = first
    later = tmp_path / "pets"
    shutil.copytree(data, later)
    request = Request(str(later), "resnet8", student="resnet8", epochs=1)
    open_project(request, tmp_path / "out", None)
    warnings = []
    log = "ppcls.distilling.request.LOGGER.warning"
    monkeypatch.setattr(log, lambda text, *args: warnings.append(text % args))
    open_project(request, tmp_path / "out", None)
    assert not warnings
    shutil.copy(later / "cat/0.png", later / "cat/more.png")
    open_project(request, tmp_path / "out", None)
    assert "has 16 images now, and had 15" in warnings[0]
    shutil.rmtree(later)
    open_project(request, tmp_path / "out", None)  # a finished student is still there
    assert len(warnings) == 1


def test_a_copy_of_a_project_leaves_the_runs_of_the_original_alone(first, tmp_path, monkeypatch):
    _, result = first
    copy = tmp_path / "copy"
    shutil.copytree(result.project, copy)
    monkeypatch.setattr(Engine, "train", None)
    with pytest.raises(
        ConfigError, match=f"train in .*output, which belongs to the project {result.project}"
    ):
        distill(copy, overrides=["Global.epochs=2"])


def test_a_moved_project_is_named(first, tmp_path):
    _, result = first
    moved = tmp_path / "moved"
    shutil.copytree(result.project, moved)
    for recipe in moved.glob("*.yaml"):
        recipe.write_text(recipe.read_text().replace(str(result.project), str(tmp_path / "gone")))
    with pytest.raises(ConfigError, match=f"gone does not exist. If the project was moved, .* {moved} in"):
        distill(moved)


def test_an_interrupted_call_continues_with_what_is_left(first, tmp_path, monkeypatch):
    data, _ = first
    begun = []
    train = Engine.train

    def stop_at_the_student(engine, **options):
        begun.append(engine.folder.name)
        if engine.folder.name == "distill":
            raise SystemExit(143)
        return train(engine, **options)

    monkeypatch.setattr(Engine, "train", stop_at_the_student)
    for part in ("announce", "rehearse"):
        monkeypatch.setattr(f"ppcls.api.{part}", lambda steps: None)
    for _ in range(2):
        with pytest.raises(SystemExit):
            distill(data, "resnet8", out=tmp_path / "out", **TINY)
    assert begun == ["teacher", "distill", "distill"]


def test_a_project_whose_writing_was_killed_is_completed(first, tmp_path, monkeypatch):
    data, _ = first
    request = Request(str(data), "resnet8", student="resnet8", epochs=1)
    out = tmp_path / "out"
    whole = open_project(request, out, None)
    hidden = out / ".project.new"
    hidden.mkdir()
    names = ["distill.yaml", "README.md"]
    for name in names:
        (out / name).rename(hidden / name)
    listed = [path.name for path in (whole.teacher, whole.student, *whole.lists)]
    listed += ["data.yaml", "class_names.txt", *names]
    (hidden / "files.json").write_text(json.dumps(listed))
    assert open_project(request, out, None) == whole
    assert whole.distill.is_file()
    whole.distill.unlink()
    with pytest.raises(ConfigError, match="it has no distill.yaml"):
        open_project(request, out, None)


@pytest.mark.parametrize(
    "kind", slow_unless(lambda kind: kind in ("run", "exported"), ["run", "weights", "exported", "layer"])
)
def test_a_trained_teacher_of_any_kind_gives_the_same_answers(first, tmp_path, kind):
    data, result = first
    trained = result.project / "output/teacher"
    options = {}
    teacher = trained
    if kind == "weights":
        teacher = tmp_path / "teacher.pdparams"
        teacher.write_bytes((trained / "best_model.pdparams").read_bytes())
        options["teacher_network"] = "resnet8"
    if kind == "exported":
        teacher = tmp_path / "inference"
        overrides = [f"Global.save_inference_dir={teacher}"]
        Engine(load_run(trained, overrides, "export"), "export").export()
    if kind == "layer":
        teacher = ppcls.create_model("resnet8", class_num=3, pretrained=str(trained / "best_model"))
        teacher.train()
    layer = teacher if kind == "layer" else None
    request = Request(str(data), None if layer else str(teacher), student="resnet8", **options)
    project = open_project(request, tmp_path / "out", layer)
    assert project.teacher is None
    images = paddle.randn([2, 3, 32, 32])
    ours, theirs = (
        build_model(load_config(recipe).arch).run("Teacher", images)
        for recipe in (result.project / "distill.yaml", project.distill)
    )
    np.testing.assert_allclose(F.softmax(ours), F.softmax(theirs), atol=1e-5)
    if kind == "layer":
        assert teacher.training
        other = ppcls.create_model("resnet8", class_num=3)
        with pytest.raises(ConfigError, match="teacher: was 'layer"):
            open_project(request, tmp_path / "out", other)


def test_a_layer_has_to_give_logits_of_the_classes(first, tmp_path):
    data, _ = first
    with pytest.raises(ConfigError, match=r"gives \[2, 4\] for two images, expected logits \[2, 3\]"):
        distill(data, ppcls.create_model("resnet8", class_num=4), out=tmp_path / "out", **TINY)
    with pytest.raises(ConfigError, match=r"the layer cannot run on images \[2, 3, 32, 32\]"):
        distill(data, paddle.nn.Linear(7, 3), out=tmp_path / "out", **TINY)
    assert not (tmp_path / "out").exists()


def test_digests_tell_layers_apart():
    one, other = (ppcls.create_model("resnet8", class_num=3) for _ in range(2))
    assert digest_of(one) == digest_of(one) != digest_of(other)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"teacher": "resnet9"}, "teacher: 'resnet9' is no network.*Did you mean: resnet8"),
        ({"teacher": "nowhere/best_model"}, "teacher: no weights file nowhere/best_model"),
        ({"teacher": "nowhere/net.onnx"}, "net.onnx: there is no such file"),
        ({"teacher": "{data}"}, "neither the folder of a run nor that of an exported network"),
        ({"teacher": "{out}"}, "is not the folder of a run; it holds .*output/distill"),
        ({"teacher": "{out}/distill.yaml"}, "distill.yaml is not a weights file"),
        ({"student": "resnet9"}, "student: unknown network 'resnet9'. Did you mean: resnet8"),
        ({"method": "dkdd"}, "unknown method 'dkdd'.*Did you mean: dkd"),
        ({"method": "mgd"}, "Other methods need names of layers"),
        ({"image_size": 3}, "image_size: expected 8"),
        ({"epochs": 0}, "epochs: expected 1"),
        ({"epochs": "2"}, "epochs: expected a whole number, got '2'"),
        ({"epochs": 1.5}, "epochs: expected a whole number, got 1.5"),
        ({"image_size": (32, 32)}, "image_size: expected a whole number"),
        ({"seed": 1.5}, "seed: expected a whole number of 0 or more"),
        ({"val": "a"}, "val: expected a share between 0 and 1, such as 0.2, got 'a'"),
        ({"data": None}, "data: expected a path or a name, got null"),
        ({"teacher": 3}, "teacher: expected a path or a name, got 3"),
        ({"teacher": None, "teacher_network": "resnet8"}, "teacher_network: resnet8 is for a weights file"),
        ({"teacher": ""}, "teacher: expected a path or a name, got ''"),
        ({"out": ""}, "out: expected a path or a name, got ''"),
        ({"overrides": "Global.epochs=2"}, "overrides: expected a list"),
        ({"overrides": {"Global.epochs": 2}}, "overrides: expected a list"),
        ({"data": "{data}s"}, "no such folder or list"),
        ({"overrides": ["Global.output_dir=x"]}, "distill itself decides Global.output_dir"),
        ({"overrides": ["students:Arch.name=x"]}, "there is no step 'students'"),
        ({"overrides": ["Global.epoch=2"]}, "Did you mean: epochs"),
        ({"out": "{data}/cat/0.png"}, "out: cannot write to .*Not a directory"),
        ({"export": "{data}/cat/0.png"}, "export: cannot write to .*Not a directory"),
        ({"out": "{data}"}, "where it would be taken for a class"),
        ({"out": "{out}", "method": "kd"}, "of another call:\n.*method: was 'dkd', is 'kd'"),
        ({"out": "{out}", "overrides": ["Optimizer.lr.learning_rate=1.0"]}, "was trained with other"),
        ({"data": "{out}", "student": "resnet8"}, "--student: .* is a project"),
        ({"overrides": ["Global.eval_during_train=False"]}, "best epoch by evaluations"),
        ({"overrides": ["Global.start_eval_epoch=2"]}, "best epoch by evaluations"),
        ({"overrides": ["student:Global.epochs=2"]}, "-o student:Global.epochs=2: .*--baseline is missing"),
        ({"teacher": "{out}/output/teacher", "overrides": ["teacher:A=2"]}, "the teacher is trained already"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_named_before_anything_is_trained(first, tmp_path, monkeypatch, changed, words):
    data, result = first
    monkeypatch.setattr(Engine, "train", None)
    places = {"{data}": str(data), "{out}": str(result.project)}
    for place, path in places.items():
        changed = {k: v.replace(place, path) if isinstance(v, str) else v for k, v in changed.items()}
    if changed.get("data") == str(result.project):
        arguments = changed
    else:
        arguments = {"data": data, "teacher": "resnet8", "out": tmp_path / "out", **TINY} | changed
    with pytest.raises(PpclsError, match=f"(?s){words}"):
        distill(**arguments)


def test_a_teacher_of_other_classes_is_refused(first, tmp_path):
    data, result = first
    trained = result.project / "output/teacher"
    options = {"out": tmp_path / "out", **TINY}
    four = write_classes(tmp_path / "four", ["a", "b", "c", "d"], 3)
    with pytest.raises(ConfigError, match="has 3 classes, and the data have 4. Name the network alone"):
        distill(four, trained, **options)
    with pytest.raises(WeightsError, match="has to know the classes"):
        distill(four, trained / "best_model", teacher_network="resnet8", **options)
    other = write_classes(tmp_path / "other", ["cat", "dog", "horse"], 3)
    with pytest.raises(ConfigError, match="other classes: class 2 is 'golden fish' there and 'horse'"):
        distill(other, trained, **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        distill(tmp_path / "empty", trained, **options)


def test_a_run_says_how_its_network_wants_images(recipe, write_recipe, tmp_path):
    assert main(["train", "-c", str(write_recipe(recipe)), "-o", "Global.epochs=1"]) == 0
    teacher = find_teacher(str(tmp_path / "output/resnet8"))
    assert teacher.classes == 4
    assert teacher.preprocessing == Preprocessing(16, (0.5,) * 3, (0.25,) * 3)
    assert teacher.preprocessing.options(48) == {"input_size": 16, "mean": [0.5] * 3, "std": [0.25] * 3}
    assert Preprocessing(48, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).options(48) == {}


def test_settings_reach_the_steps_that_they_are_for():
    found = split_overrides(["Global.epochs=2", "Loss.Train.0.CELoss.weight=2", "teacher:Arch.name=x"])
    assert found["teacher"] == ["Global.epochs=2", "Arch.name=x"]
    assert found["student"] == ["Global.epochs=2"]
    assert found["distill"] == ["Global.epochs=2", "Loss.Train.0.CELoss.weight=2"]
    with pytest.raises(ConfigError, match="decides Global.checkpoints"):
        split_overrides(["teacher:Global.checkpoints=x"])


def test_the_command_says_what_it_will_do_and_how_long_it_takes(first, tmp_path, monkeypatch, capsys):
    data, result = first
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ppcls.api.run_step", lambda step: pytest.fail(step.name))
    arguments = ["distill", str(data), "--teacher", "resnet8", "--student", "resnet8", "--epochs", "2"]
    with pytest.raises(pytest.fail.Exception):
        main([*arguments, "--baseline"])
    shown = capsys.readouterr().out
    assert "1 of 3: the teacher, resnet8: 2 epochs of 12 images, about" in shown
    assert "altogether about" in shown
    assert json.loads((tmp_path / "distilled/distill.json").read_text())["epochs"] == 2
    assert main([*arguments[:-1], "3"]) == 2
    assert "epochs: was 2, is 3" in capsys.readouterr().err


def test_durations_are_said_as_people_do():
    assert [in_words(s) for s in (0.2, 61, 600, 9000)] == [
        "about 1 s",
        "about 61 s",
        "about 10 min",
        "about 2.5 h",
    ]


def test_train_returns_the_run(recipe, write_recipe, tmp_path):
    run = ppcls.train(write_recipe(recipe), ["Global.epochs=1", "Global.run_name=one"])
    assert run.folder == tmp_path / "output/one"
    assert run.finished
    assert "top1" in run.best_metrics
    again = ppcls.train(load_config(run.config_file), resume="auto")
    assert again.best_metrics == run.best_metrics
    resumed = ppcls.train(load_config(run.config_file).to_dict(), resume=run.folder / "latest")
    assert resumed.best_metrics == run.best_metrics
    with pytest.raises(ConfigError, match="recipe: expected a path or a name, got null"):
        ppcls.train(None)
    assert {"distill", "train", "create_model"} <= set(dir(ppcls))


@pytest.fixture(scope="module")
def onnx_teacher(first):
    """The student of a distillation as ONNX file, alone in its folder."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("paddle2onnx")
    _, result = first
    folder = result.project / "onnx"
    result.export(folder, onnx=True)
    file = folder.with_suffix(".onnx")
    file.write_bytes((folder / "inference.onnx").read_bytes())
    return file


def changed_onnx(file: Path, target: Path, *, batch: int = 0) -> Path:
    """Write a copy of an ONNX file without metadata; with `batch` it takes so many images at once alone."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(file))
    del model.metadata_props[:]
    if batch:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, str(target))
    return target


def test_an_onnx_teacher_brings_what_its_file_says(onnx_teacher, tmp_path, first):
    data, _ = first
    teacher = find_teacher(str(onnx_teacher))
    assert (teacher.classes, teacher.names) == (3, ("cat", "dog", "golden fish"))
    assert teacher.preprocessing.size == 32
    assert teacher.node["probabilities"]
    assert teacher.notes == ()
    bare = find_teacher(str(changed_onnx(onnx_teacher, tmp_path / "bare.onnx")))
    assert (bare.classes, bare.names, bare.preprocessing.mean) == (3, None, None)
    assert "assumed to be normalised as for ImageNet" in bare.notes[0]
    four = write_classes(tmp_path / "four", ["a", "b", "c", "d"], 3)
    with pytest.raises(ConfigError, match="has 3 classes, and the data have 4"):
        distill(four, onnx_teacher, out=tmp_path / "out", **TINY)
    batches = changed_onnx(onnx_teacher, tmp_path / "batches.onnx", batch=4)
    with pytest.raises(ConfigError, match="takes batches of 4 images alone"):
        find_teacher(str(batches))
    project = open_project(
        Request(str(data), str(onnx_teacher), student="resnet8", image_size=48), tmp_path / "out", None
    )
    node = load_config(project.distill).arch.find("Teacher").options
    assert (node["name"], node["input_size"], node["probabilities"]) == ("OnnxModel", 32, True)


def test_an_export_that_cannot_teach_is_refused(first, tmp_path):
    _, result = first
    text = (result.exported / "inference.yml").read_text(encoding="utf-8")
    for number, (old, new, words) in enumerate(
        [
            ("to_rgb: true", "to_rgb: false", "takes images in BGR"),
            ("- 3\n  - 32\n  - 32", "- 1\n  - 32\n  - 32", "images of 1 channels, expected 3"),
            ("- 3\n  - 32\n  - 32", "- big", "image_shape: expected three whole numbers"),
            ("output: probabilities", "output: features", "gives features, expected logits"),
        ]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(result.exported, folder)
        assert old in text
        (folder / "inference.yml").write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(ConfigError, match=words):
            find_teacher(str(folder))
