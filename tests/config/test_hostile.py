"""YAML that is damaged or means harm: one line with file and reason, quickly, and in little memory."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from ppcls.config import load_config, parse_yaml, read_yaml
from ppcls.config.interpolation import resolve
from ppcls.config.loading import override, read
from ppcls.config.yaml_text import MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_NODES_OF_DATA
from ppcls.errors import ConfigError


def _refused(function: Any, *arguments: Any) -> str:
    """Return the message, and see that it came quickly and that little memory was asked for."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(ConfigError) as caught:
            function(*arguments)
        assert time.process_time() - start < 5  # mostly less than a second
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert len(text) < 500
    return text


def _aliases(levels: int, each: int) -> str:
    rows = ["a0: &a0 [x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * each)}]" for n in range(1, levels + 1)]
    return "\n".join(rows)


def _merges(levels: int) -> str:
    rows = ["a0: &a0 {k: 1}"]
    rows += [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}" for n in range(1, levels + 1)]
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:\n- " + "[" * 100 + "]" * 100, f"f:2: nested more than {MAX_DEPTH} levels deep"),
        ("[" * 100_000, "f:1: "),
        ("{a: " * 100 + "1" + "}" * 100, f"nested more than {MAX_DEPTH}"),
        ("- " * 3000 + "a", f"nested more than {MAX_DEPTH}"),
        ("? " * 3000 + "a", f"nested more than {MAX_DEPTH}"),
        (_aliases(60, 1), f"nested more than {MAX_DEPTH}"),
        (_aliases(30, 9), f"more than {MAX_NODES} values, aliases written out"),
        (_merges(40), f"more than {MAX_NODES} values, aliases written out"),
        ("a: &a " + "x" * 100_000 + "\nb: [" + "*a," * 9000 + "]", "aliases written out"),
        ("- a\n" * (2 * MAX_NODES), f"more than {MAX_NODES} values"),
        ("a: &a [*a]", "the alias *a stands inside what it means"),
        ("a: &a {b: [*a]}", "the alias *a stands inside what it means"),
        (
            "a: " + "9" * 5000,
            "the whole number 99999999999999999999... (5000 characters) has more than 64 bits",
        ),
        ("a: 0x" + "f" * 17, "more than 64 bits"),
        ("a: -18446744073709551616", "more than 64 bits"),
        ("a: " + ":".join(["59"] * 50), "more than 64 bits"),
        ("a: 0." + "1" * 500, "has more than 100 characters"),
        ("a: 1e" + "1" * 5000, "has more than 100 characters"),
        ("a: !!int x", "a value marked as int that is none"),
        ("a: !!bool x", "a value marked as bool that is none"),
        ("a: !!float ''", "a value marked as float that is none"),
        ("a: !!timestamp 2001-99-99", "the tag !!timestamp is not supported"),
        ("a: !!binary x", "the tag !!binary is not supported"),
        ("a: !!set {b}", "the tag !!set is not supported"),
        (
            "a: !!python/object/apply:os.system [x]",
            "the tag !!python/object/apply:os.system is not supported",
        ),
        ("a: !!python/object/apply:pathlib.Path [x]", "is not supported"),
        ("true: 1", "the key true is no text; put it in quotes"),
        ("~: 1", "the key ~ is no text"),
        ("0.5: 1", "the key 0.5 is no text"),
        ("? [a]\n: 1", "the key a list is no text"),
        ("? {a: 1}\n: 1", "the key a map is no text"),
        ("1: a\n1: b", "f:2: the key 1 is given twice"),
        ("a: *b", "undefined alias"),
        ("a: \x01", "not YAML"),
        ("a: \ud800", "not YAML"),
        ("a: 1\n---\nb: 1", "f:2: not YAML"),
        ("%YAML 9.9\n---\na: 1", "not YAML"),
        ("<<: 1", "not YAML"),
    ],
)
def test_what_no_file_needs_is_refused_with_its_line(text: str, words: str) -> None:
    assert words in _refused(parse_yaml, text, "f")


def test_what_is_just_within_the_limits_is_read() -> None:
    assert len(parse_yaml("- a\n" * (MAX_NODES - 1), "f")) == MAX_NODES - 1
    assert len(parse_yaml("- a\n" * 22_000, "f", MAX_NODES_OF_DATA)) == 22_000
    parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, "f")
    assert parse_yaml("18446744073709551615", "f") == 2**64 - 1
    assert parse_yaml("[1e-4, 1E5, +1e3, .5, 1_0.5, -.inf, 1e5x, 1.e2]", "f") == [
        1e-4,
        1e5,
        1e3,
        0.5,
        10.5,
        float("-inf"),
        "1e5x",
        100.0,
    ]


def test_the_limits_themselves(tmp_path: Path) -> None:
    assert parse_yaml("0." + "1" * 98, "f") == pytest.approx(1 / 9)
    assert "more than 100 characters" in _refused(parse_yaml, "0." + "1" * 99, "f")
    file = tmp_path / "a.yaml"
    file.write_bytes(b"a: 1\n" + b"#" * (MAX_BYTES - 5))
    assert read_yaml(file) == {"a": 1}
    file.write_bytes(b"a: 1\n" + b"#" * (MAX_BYTES - 4))
    assert "larger than 8 MB" in _refused(read_yaml, file)
    assert "more than 10 values" in _refused(parse_yaml, "- a\n" * 10, "f", 10)
    assert len(parse_yaml("- a\n" * 9, "f", 10)) == 9


def test_what_aliases_repeat_can_be_changed_apart() -> None:
    tree = parse_yaml("a: &a {b: [1]}\nc: *a\nd: {<<: *a}", "f")
    override(tree, "a.b.0=2")
    assert tree == {"a": {"b": [2]}, "c": {"b": [1]}, "d": {"b": [1]}}


def test_keys_that_a_merge_brings_may_be_given_again() -> None:
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}", "f")["b"] == {"x": 3, "y": 2}
    assert "'x' is given twice" in _refused(parse_yaml, "a: &a {y: 2}\nb: {x: 1, <<: *a, x: 3}", "f")


def test_files_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes("a: 1\nb: 学习率\n".encode("gbk"))
    assert f"{file}:2: not UTF-8 (byte 0xc2); save the file as UTF-8" in _refused(read_yaml, file)
    with file.open("wb") as stream:
        stream.truncate(1 << 40)  # takes no space on the disk, and would take a terabyte of memory
    assert f"larger than {MAX_BYTES >> 20} MB" in _refused(read_yaml, file)
    assert "cannot be read" in _refused(read_yaml, tmp_path)
    assert "cannot be read" in _refused(read_yaml, tmp_path / "none.yaml")


# ---------------------------------------------------------------- bases


def test_a_diamond_of_bases_is_read_once_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b0.yaml").write_text("a: {x: 1}\n")
    for n in range(1, 31):  # 2**30 readings if each were read for each that names it
        (tmp_path / f"b{n}.yaml").write_text(f"_base_: [b{n - 1}.yaml, b{n - 1}.yaml]\nk{n}: {n}\n")
    opened = []
    monkeypatch.setattr("ppcls.config.loading.read_yaml", lambda path: opened.append(path) or read_yaml(path))
    assert read(tmp_path / "b30.yaml") == {"a": {"x": 1}, **{f"k{n}": n for n in range(1, 31)}}
    assert len(opened) == 31


def test_a_chain_or_a_heap_of_bases_ends(tmp_path: Path) -> None:
    (tmp_path / "b0.yaml").write_text("a: 1\n")
    for n in range(1, 1001):
        (tmp_path / f"b{n}.yaml").write_text(f"_base_: b{n - 1}.yaml\n")
    assert f"a chain of more than {MAX_DEPTH} files" in _refused(read, tmp_path / "b1000.yaml")
    (tmp_path / "many.yaml").write_text(f"_base_: [{'b0.yaml,' * 5000}]\n")
    assert "more than 200 files" in _refused(read, tmp_path / "many.yaml")


# ---------------------------------------------------------------- interpolations


def test_interpolations_that_grow_are_refused_before_they_do() -> None:
    lists = {"a0": [1, 2, 3, 4]} | {f"a{n}": [f"${{a{n - 1}}}"] * 4 for n in range(1, 30)}
    assert f"a6: interpolations make more than {MAX_NODES} values of it" in _refused(resolve, lists)
    texts = {"a0": "x"} | {f"a{n}": f"${{a{n - 1}}}" * 4 for n in range(1, 30)}
    assert "interpolations make more than" in _refused(resolve, texts)
    within = {"m": {"a0": [1] * 4} | {f"a{n}": [f"${{.a{n - 1}}}"] * 4 for n in range(1, 30)}}
    assert "interpolations make more than" not in _refused(resolve, within)  # `.a0` is searched in the list
    maps = {"m": {"a0": {"x": 1}} | {f"a{n}": {k: f"${{..a{n - 1}}}" for k in "wxyz"} for n in range(1, 30)}}
    assert "m.a7: interpolations make more than" in _refused(resolve, maps)
    through = {"b": "${m}", "m": {"a0": [1] * 4}}
    through["m"] |= {f"a{n}": [f"${{b.a{n - 1}}}"] * 4 for n in range(1, 30)}
    _refused(resolve, through)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"a": "${a}"}, "leads back to itself"),
        ({"a": "${b}", "b": "${a}"}, "leads back to itself"),
        ({"a": {"b": "${a}"}}, "leads back to itself"),
        ({"a": "${b.x}", "b": "${a.y}"}, "a: "),
        (
            {f"a{n}": f"${{a{n + 1}}}" for n in range(100)} | {"a100": 1},
            "levels deep, interpolations included",
        ),
        ({"a": "${" * 200}, "a: "),
        ({"a": "${" + "b." * 400 + "}"}, "a: "),
        ({"a": "${" + "b." * 4000 + "}"}, "8003 characters with interpolations, at most 1000"),
        ({"a": "${${b}}", "b": "c", "c": 1}, "an interpolation is ${path.of.a.value}"),
        ({"a": "${b.${c}}", "b": {"d": 1}, "c": "d"}, "an interpolation is ${path.of.a.value}"),
        ({"a": "${oc.env:${b}}", "b": "HOME"}, "an interpolation is"),
        ({"a": "${oc.decode:${b}}", "b": "1"}, "an interpolation is"),
        ({"a": "${oc.create:[1]}"}, "an interpolation is"),
        ({"a": "${nothing:1}"}, "an interpolation is"),
        ({"a": "${b.c}", "b": [1]}, "a: "),
        ({"a": "${b[" + "9" * 900 + "]}", "b": [1]}, "a: "),
    ],
)
def test_interpolations_that_lead_nowhere(tree: dict[str, Any], words: str) -> None:
    assert words in _refused(resolve, tree)


def test_interpolations_that_recipes_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPCLS_TEST", "7")
    tree = {
        "n": 3,
        "same": "${n}",
        "text": "out/${n}/${oc.env:PPCLS_TEST}",
        "env": "${oc.env:PPCLS_TEST}",
        "number": "${oc.decode:${oc.env:PPCLS_TEST}}",
        "default": "${oc.env:PPCLS_MISSING,${n}}",
        "list": [1, "${list[0]}", "${.[0]}"],
        "map": {"a": "${..n}", "b": "${.a}", "whole": "${list}"},
        "far": "${map.whole[0]}",
        5: {"x": 1},
        "numbered": "${5.x}",
    }
    found = resolve(tree)
    assert found["text"] == "out/3/7"
    assert (found["same"], found["env"], found["number"], found["default"]) == (3, "7", 7, "3")
    assert found["list"] == [1, 1, 1]
    assert found["map"] == {"a": 3, "b": 3, "whole": [1, 1, 1]}
    assert (found["far"], found["numbered"]) == (1, 1)


def test_a_value_that_must_be_given() -> None:
    assert "a.b" in _refused(resolve, {"a": {"b": "???"}, "c": 1})
    assert resolve({"a": "?"}) == {"a": "?"}


def test_a_large_recipe_with_interpolations_is_no_deep_one() -> None:
    tree = {"n": 1, **{f"k{number}": ["${n}", {"x": number}] for number in range(500)}}
    assert resolve(tree)["k499"] == [1, {"x": 499}]


# ---------------------------------------------------------------- values after -o


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("k=" + "[" * 5000, "not YAML"),
        ("k={a:{b:1}}", "leave a blank after each colon"),
        ("k=" + "[" * 100 + "]" * 100, "levels deep"),
        ("k=" + "9" * 5000, "more than 64 bits"),
        ("k={true: 1}", "the key true is no text"),
        ("k=!!int x", "marked as int"),
        ("k=\ud800", "not YAML"),
        (".".join("k" * 100) + "=1", f"100 steps, at most {MAX_DEPTH}"),
        ("l." + "9" * 5000 + "=1", "past the last"),
        ("l.²=1", "must be a number"),
    ],
)
def test_hostile_overrides(text: str, words: str) -> None:
    assert words in _refused(override, {"k": 0, "l": [1]}, text)


def test_a_network_named_true(recipe: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    for arch in (
        "{name: True}",
        "{name: {True: 1}}",
        "{models: [True: {name: resnet8}], name: DistillationModel}",
    ):
        file.write_text(f"Arch: {arch}\n", encoding="utf-8")
        assert "rue" in _refused(load_config, file)


@pytest.mark.parametrize("value", [2**62, 10**12, -(2**40), 0])
@pytest.mark.parametrize("network", ["resnet8", "PPLCNet_x0_25", "ViT_small_patch16_224"])
def test_numbers_that_no_network_can_be_built_with(network: str, value: int, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(f"Arch: {{name: {network}, class_num: {value}}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="Arch"):
        load_config(file, mode="export")


def test_a_width_beyond_all_bounds(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("Arch: {name: PPLCNet, scale: 1e300}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="Arch"):
        load_config(file, mode="export")
