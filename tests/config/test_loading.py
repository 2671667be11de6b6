from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import paddle
import pytest

from ppcls.config import complete_config, load_config, loading
from ppcls.config.interpolation import resolve
from ppcls.config.loading import find_recipe, override, read
from ppcls.errors import ConfigError


def _write(folder: Path, name: str, text: str | bytes) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


# ---------------------------------------------------------------- YAML


def test_numbers_dates_anchors_and_chinese_comments(tmp_path: Path) -> None:
    text = "a: 1e-4 # 学习率\nb: 2024-1-1\nc: &n 10\nd: *n\ne: {<<: {x: 1}, y: 名}\nf: 1.0/255.0\n"
    tree = read(_write(tmp_path, "a.yaml", text))
    assert tree == {"a": 1e-4, "b": "2024-1-1", "c": 10, "d": 10, "e": {"x": 1, "y": "名"}, "f": "1.0/255.0"}


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert read(_write(tmp_path, "a.yaml", b"\xef\xbb\xbfGlobal: {epochs: 1}\n")) == {"Global": {"epochs": 1}}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' is given twice"),
        ("a:\n  b: 1\n  b: 2\n", 3, "'b' is given twice"),
        ("a: [1,\nb: 2\n", 1, "not YAML"),
        ("x: 1\na: {b: 1,\n  c: 2\nd: 3\n", 2, "flow mapping"),
        ("x: 1\na: 'text\nb: 2\n", 2, "quoted"),
        ("a:\n  epochs 3\n  device: cpu\n", 2, "a colon is missing"),
        ("a:\n  epochs 3\n\n  # why\n  device: cpu\n", 2, "A colon is missing"),
        ("a:\n  b: 1\n   c: 2\n", 3, "indentation"),
        ("a:\n  b: c: d\n", 2, "one colon too many"),
        ("a: 1\nb\n", 2, "Expected 'key: value'"),
        ("a:\n  - b\n  c: 1\n", 3, "not YAML"),
        ("a:\n  b: 1\n c: 2\n", 3, "indentation"),
        ("a: 1\nb: @x\n", 2, "in quotes"),
        ("a: 1\n\tb: 2\n", 2, "not tabs"),
        ("a: *missing\n", 1, "undefined alias"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "tag"),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        ("a: 1\nb: \u7f51\u7edc\n".encode("gbk"), 2, "save the file as UTF-8"),
    ],
)
def test_a_mistake_in_the_text_is_named_with_file_and_line(
    tmp_path: Path, text: str | bytes, line: int, words: str
) -> None:
    file = _write(tmp_path, "a.yaml", text)
    with pytest.raises(ConfigError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "word\n"])
def test_a_file_without_sections_is_refused(tmp_path: Path, text: str) -> None:
    file = _write(tmp_path, "a.yaml", text)
    with pytest.raises(ConfigError, match="a.yaml"):
        read(file)


def test_interpolation(tmp_path: Path) -> None:
    tree = read(_write(tmp_path, "a.yaml", "a: {n: 3}\nb: ${a.n}\n"))
    override(tree, "a.n=5")
    assert resolve(tree) == {"a": {"n": 5}, "b": 5}
    with pytest.raises(ConfigError, match=r"b: the recipe does not set a\.m, and a default cannot be"):
        resolve({"a": {"n": 3}, "b": "${a.m}"})
    with pytest.raises(ConfigError, match=r"Did you mean: name\?"):
        resolve({"list": [{"name": 3}], "b": "${list.0.nam}"})
    with pytest.raises(ConfigError, match="a"):
        resolve({"a": "???"})


def test_null_inside_of_a_text_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    tree = {"Global": {"seed": None, "run_name": "run_${Global.seed}", "other": "${Global.seed}"}}
    with caplog.at_level(logging.WARNING, "ppcls"):
        assert resolve(tree)["Global"] == {"seed": None, "run_name": "run_None", "other": None}
    expected = "Global.run_name: Global.seed is null, which becomes None in run_${Global.seed}"
    assert caplog.messages == [expected]


def test_paths_may_begin_with_the_home_folder_or_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PLACE", "/disk")
    tree = {"a": "~/x", "b": ["~", {"c": "${oc.env:PLACE}/y"}], "d": "x~y", "delimiter": "~"}
    assert resolve(tree) == {
        "a": "/home/me/x",
        "b": ["/home/me", {"c": "/disk/y"}],
        "d": "x~y",
        "delimiter": "~",
    }
    assert tree["a"] == "~/x"


def test_a_missing_variable_is_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ConfigError, match=r"^a\.b: the environment variable NOWHERE is not set"):
        resolve({"a": {"b": "${oc.env:NOWHERE}"}})


# ---------------------------------------------------------------- bases


def test_maps_merge_and_lists_replace(tmp_path: Path) -> None:
    _write(tmp_path, "low/base.yaml", "a: {x: 1, y: 2, l: [1, 2, 3]}\nb: 1\nn: {k: 1}\n")
    _write(tmp_path, "low/more.yaml", "a: {y: 3}\nc: 4\n")
    top = _write(tmp_path, "top.yaml", "_base_: [low/base.yaml, low/more.yaml]\na: {x: 9, l: [7]}\nn: null\n")
    assert read(top) == {"a": {"x": 9, "y": 3, "l": [7]}, "b": 1, "c": 4, "n": None}


def test_a_heading_without_settings_changes_nothing(tmp_path: Path) -> None:
    _write(tmp_path, "base.yaml", "Global: {epochs: 3}\nAMP: {scale_loss: 2.0}\n")
    top = _write(tmp_path, "top.yaml", "_base_: base.yaml\nGlobal:\nAMP:\n")
    tree = read(top)
    assert tree == {"Global": {"epochs": 3}, "AMP": None}
    override(tree, "Global=")
    assert tree["Global"] == {"epochs": 3}


@pytest.mark.parametrize("value", ["3", "[1]"])
def test_settings_that_are_no_section_are_one_mistake(tmp_path: Path, value: str) -> None:
    text = "Global: {epochs: 3}\nDataLoader: {Train: '${Global.epochs}'}\n"
    own = _write(tmp_path, "own.yaml", text.replace("{epochs: 3}", value))
    for arguments in ((own,), (_write(tmp_path, "base.yaml", text), [f"Global={value}"])):
        with pytest.raises(ConfigError, match=r"Global: expected a section with keys such as epochs, got"):
            load_config(*arguments)


@pytest.mark.parametrize("overrides", ["Global.epochs=1", None, [3], {"Global.epochs": 1}])
def test_overrides_are_a_list_of_texts(overrides: Any) -> None:
    with pytest.raises(ConfigError, match="overrides: expected a list such as"):
        load_config("ImageNet/ResNet/ResNet18.yaml", overrides)


def test_recipes_and_bases_lie_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _write(tmp_path, "low.yaml", "a: 1\n")
    _write(tmp_path, "top.yaml", "_base_: ~/low.yaml\nb: 2\n")
    assert read(find_recipe("~/top.yaml")) == {"a": 1, "b": 2}
    with pytest.raises(ConfigError, match="no such file"):
        find_recipe("~nobody-of-this-name/top.yaml")


def test_paddle_in_static_mode_is_named() -> None:
    paddle.enable_static()
    try:
        with pytest.raises(ConfigError, match="static mode; call paddle.disable_static"):
            load_config("ImageNet/ResNet/ResNet18.yaml")
        with pytest.raises(ConfigError, match="static mode"):
            complete_config({"Arch": {"name": "resnet8"}}, "train")
    finally:
        paddle.disable_static()


def test_numbers_change_entries_of_a_list(tmp_path: Path) -> None:
    _write(tmp_path, "list.yaml", "a: [{x: {k: 1, l: 2}}, 5, [6, 7]]\n")
    _write(tmp_path, "method.yaml", "a: {0: {x: {l: 3}}, 1: 8}\n")
    top = _write(
        tmp_path, "top.yaml", "_base_: [list.yaml, method.yaml]\na: {2: {0: {y: 9}}, 0: {x: {m: 4}}}\n"
    )
    assert read(top) == {"a": [{"x": {"k": 1, "l": 3, "m": 4}}, 8, [{"y": 9}, 7]]}
    assert read(_write(tmp_path, "null.yaml", "_base_: method.yaml\na: null\n")) == {"a": None}
    # What is no map of numbers replaces the list, as before.
    for other, value in (("{}", {}), ("{x: 1}", {"x": 1}), ("{0: 1, x: 2}", {0: 1, "x": 2}), ("null", None)):
        assert read(_write(tmp_path, "other.yaml", f"_base_: list.yaml\na: {other}\n")) == {"a": value}


def test_changes_to_a_list_leave_other_users_of_its_file_alone(tmp_path: Path) -> None:
    _write(tmp_path, "list.yaml", "a: [{x: 1}]\n")
    _write(tmp_path, "changed.yaml", "_base_: list.yaml\na: {0: {x: 2}}\n")
    assert read(_write(tmp_path, "top.yaml", "_base_: [changed.yaml, list.yaml]\n")) == {"a": [{"x": 1}]}


@pytest.mark.parametrize("number", ["2", "-1", "999999999999"])
def test_an_entry_that_a_list_has_not_is_named(tmp_path: Path, number: str) -> None:
    _write(tmp_path, "list.yaml", "a: {b: [1, 2]}\n")
    top = _write(tmp_path, "top.yaml", f"_base_: list.yaml\na: {{b: {{{number}: 3}}}}\n")
    with pytest.raises(
        ConfigError, match=rf"top\.yaml: a\.b has 2 entries, counted from 0: none is {number}$"
    ):
        read(top)


def test_changes_to_entries_before_their_list_are_not_lost_silently(tmp_path: Path) -> None:
    _write(tmp_path, "list.yaml", "a: {b: [1, 2]}\n")
    _write(tmp_path, "method.yaml", "a: {b: {0: 3}}\n")
    top = _write(tmp_path, "top.yaml", "_base_: [method.yaml, list.yaml]\n")
    with pytest.raises(
        ConfigError, match=r"top\.yaml: a\.b: the list comes after changes .* first in _base_"
    ):
        read(top)


def test_a_base_is_found_from_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, "x/deep/base.yaml", "a: 1\n")
    _write(tmp_path, "x/middle.yaml", "_base_: deep/base.yaml\n")
    top = _write(tmp_path, "y/top.yaml", "_base_: ../x/middle.yaml\nb: 2\n")
    monkeypatch.chdir("/")
    assert read(top) == {"a": 1, "b": 2}


def test_a_base_may_be_a_packaged_recipe(tmp_path: Path) -> None:
    top = _write(tmp_path, "top.yaml", "_base_: ImageNet/ResNet/ResNet18.yaml\nArch: {class_num: 7}\n")
    assert read(top)["Arch"] == {"name": "ResNet18", "class_num": 7}


def test_a_base_beside_a_copied_recipe_wins_over_the_packaged_one(tmp_path: Path) -> None:
    _write(tmp_path, "_base_/own_images.yaml", "a: mine\n")
    assert read(_write(tmp_path, "x/top.yaml", "_base_: ../_base_/own_images.yaml\n")) == {"a": "mine"}
    assert "DataLoader" in read(_write(tmp_path, "x/y/top.yaml", "_base_: ../_base_/own_images.yaml\n"))
    with pytest.raises(ConfigError, match=r"top\.yaml: _base_"):
        read(_write(tmp_path, "x/y/top.yaml", "_base_: /_base_/own_images.yaml\n"))


def test_a_circle_of_bases_ends(tmp_path: Path) -> None:
    _write(tmp_path, "a.yaml", "_base_: b.yaml\n")
    file = _write(tmp_path, "b.yaml", "_base_: a.yaml\n")
    with pytest.raises(ConfigError, match=r"circle: b\.yaml -> a\.yaml -> b\.yaml"):
        read(file)


def test_one_base_below_two_others_is_no_circle(tmp_path: Path) -> None:
    _write(tmp_path, "root.yaml", "a: 1\n")
    _write(tmp_path, "left.yaml", "_base_: root.yaml\nb: 1\n")
    _write(tmp_path, "right.yaml", "_base_: root.yaml\nc: 1\n")
    assert read(_write(tmp_path, "top.yaml", "_base_: [left.yaml, right.yaml]\n")) == {"a": 1, "b": 1, "c": 1}


def test_a_base_of_many_files_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_files = []

    def count(path: Path) -> Any:
        read_files.append(path.name)
        return read_yaml(path)

    read_yaml = loading.read_yaml
    monkeypatch.setattr(loading, "read_yaml", count)
    _write(tmp_path, "0.yaml", "a: 1\n")
    for number in range(1, 12):  # each is the base of the next, twice: 2048 ways lead to the first
        below = f"{number - 1}.yaml"
        _write(tmp_path, f"{number}.yaml", f"_base_: [{below}, {below}]\n")
    assert read(tmp_path / "11.yaml") == {"a": 1}
    assert sorted(read_files) == sorted(f"{number}.yaml" for number in range(12))


@pytest.mark.parametrize("base", ["missing.yaml", "{a: 1}", "[1]", "3", '"a\\0b"', "x" * 5000])
def test_a_wrong_base_is_named_with_the_file(tmp_path: Path, base: str) -> None:
    with pytest.raises(ConfigError, match=r"top\.yaml: _base_"):
        read(_write(tmp_path, "top.yaml", f"_base_: {base}\na: 1\n"))


# ---------------------------------------------------------------- finding a recipe


@pytest.mark.parametrize("prefix", ["", "configs/", "ppcls/configs/", "./ppcls/configs/"])
def test_packaged_recipes_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_recipe(f"{prefix}ImageNet/ResNet/ResNet18.yaml")
    assert found.name == "ResNet18.yaml"
    assert found.is_file()


def test_a_local_file_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "configs/ImageNet/ResNet/ResNet18.yaml"
    _write(tmp_path, name, "a: 1\n")
    assert read(find_recipe(name)) == {"a": 1}


def test_a_missing_file_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path, "mine/teacher_student.yaml", "a: 1\n")
    with pytest.raises(ConfigError, match=os.path.join("mine", "teacher_student.yaml")):
        load_config("mine/teacher_studnet.yaml")
    with pytest.raises(ConfigError, match="ImageNet/ResNet/ResNet18.yaml"):
        load_config("ImageNet/ResNet/ResNet_18.yaml")
    with pytest.raises(ConfigError, match="folder"):
        load_config(tmp_path)


# ---------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k=true", True),
        ("k=null", None),
        ("k=", None),
        ("k=[1, 2]", [1, 2]),
        ("k=1e-4", 1e-4),
        ("k=2024-1-1", "2024-1-1"),
        ("k=a=b", "a=b"),
        ("k='3'", "3"),
        ("k={a: 1}", {"a": 1}),
        ("k=/some/path.txt", "/some/path.txt"),
        ("k=1.0/255.0", "1.0/255.0"),
    ],
)
def test_values_are_yaml(text: str, value: Any) -> None:
    tree = {"k": 0}
    override(tree, text)
    assert tree == {"k": value}


@pytest.mark.parametrize("text", ["a.1.Student.x=2", "a[1].Student.x=2", " a.1.Student.x =2"])
def test_lists_are_counted_from_zero(text: str) -> None:
    tree = {"a": [{"Teacher": {"x": 0}}, {"Student": {"x": 0}}]}
    override(tree, text)
    assert tree == {"a": [{"Teacher": {"x": 0}}, {"Student": {"x": 2}}]}


def test_a_key_that_is_not_there_is_made_for_the_checks_to_judge() -> None:
    tree: dict[str, Any] = {"a": {"b": None}}
    override(tree, "a.b.c=1")
    override(tree, "d.e=2")
    assert tree == {"a": {"b": {"c": 1}}, "d": {"e": 2}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a", "key=value"),
        ("=1", "key=value"),
        ("a..b=1", "key=value"),
        ("l.2=1", "2 is past the last, 1"),
        ("l.x=1", "must be a number from 0 to 1"),
        ("l.-1=1", "must be a number"),
        ("n.b=1", "n is 5"),
        ("l.0.Stuent.x=1", "Did you mean: Student"),
        ("l.0.weight=1", "l.0.Student"),
        ("n=[1", "quotes"),
    ],
)
def test_bad_overrides(text: str, words: str) -> None:
    tree = {"l": [{"Student": {"x": 1}}, 2], "n": 5}
    with pytest.raises(ConfigError) as caught:
        override(tree, text)
    assert words in str(caught.value)
