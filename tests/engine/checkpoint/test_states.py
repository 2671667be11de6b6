"""Damaged and hostile files of a run: refused or passed over, never a traceback and never taken for true."""

import json
import math
import random
import zlib
from dataclasses import replace

import numpy as np
import pytest
from support import slow_unless

from ppcls.cli import main
from ppcls.engine.checkpoint import Checkpointer
from ppcls.errors import WeightsError
from ppcls.logger import cut_back
from ppcls.run_states import LARGEST, Progress, StudentBest, encode_states, read_states

FILES = {".pdparams": {"size": 10, "crc32": 7}, ".pdopt": {"size": 3, "crc32": 2**32 - 1}}
PROGRESS = Progress(
    epoch=3,
    batch=2,
    step=17,
    best={"loss": 0.5, "top1": 0.75, "broken": math.inf},
    best_score=0.75,
    best_epoch=2,
    best_by="top1 of Student",
    students={"Student2": StudentBest(0.25, 1, None)},
    judged_epoch=2,
    judged_score=0.75,
    waited=1,
    seed=2**32 - 1,
    schedule={"last_epoch": 17, "last_lr": 0.1},
    meters=[{"loss": [1.5, 8.0]}, {}],
)


@pytest.fixture
def states(tmp_path):
    path = tmp_path / "latest.pdstates"
    path.write_bytes(encode_states(PROGRESS, FILES))
    return path


def of_format_1(**changes):
    """Return the content of a file as it was written before there was a checksum."""
    content = json.loads(encode_states(PROGRESS, FILES))
    for name in ("crc32", "best_by", "students"):
        del content[name]
    return {**content, "format": 1, **changes}


def with_checksum(**changes):
    """Return a file of the present format whose checksum is right and whose content may not be."""
    content = json.loads(encode_states(PROGRESS, FILES))
    del content["crc32"]
    body = json.dumps({**content, **changes}, indent=1).removesuffix("\n}").encode()
    return body + b',\n "crc32": "%08x"\n}' % zlib.crc32(body)


def test_what_is_written_is_read_and_is_json(states):
    assert read_states(states) == (PROGRESS, FILES)
    assert json.loads(states.read_text())["step"] == 17
    for progress in (Progress(), replace(PROGRESS, finished=True, students={})):
        states.write_bytes(encode_states(progress, FILES))
        assert read_states(states)[0] == progress


def test_a_file_without_checksum_of_an_older_version_is_read(states):
    states.write_text(json.dumps(of_format_1(), indent=1))
    expected = replace(PROGRESS, best_by="", students={})
    assert read_states(states) == (expected, FILES)


def test_every_changed_bit_is_seen(states):
    content = states.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        states.write_bytes(changed)
        with pytest.raises(WeightsError, match="latest.pdstates"):
            read_states(states)


def test_every_truncation_and_every_lost_or_doubled_line_is_seen(states):
    content = states.read_bytes()
    for length in range(len(content)):
        states.write_bytes(content[:length])
        with pytest.raises(WeightsError, match="latest.pdstates"):
            read_states(states)
    lines = content.splitlines(keepends=True)
    for number in range(len(lines)):
        for changed in (
            lines[:number] + lines[number + 1 :],
            lines[:number] + lines[number:][:1] + lines[number:],
        ):
            states.write_bytes(b"".join(changed))
            with pytest.raises(WeightsError, match="latest.pdstates"):
                read_states(states)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(1000),
        b"\x80\x04junk",
        b"\xff\xfe{}",
        b"[]",
        b"3",
        b"null",
        b'{"format": 99}',
        b'{"format": true}',
        b'{"format": [[[]]]}',
        b'{"format": 1}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format": ' + b"9" * 10_000 + b"}",
        b'{"format": 1, "step": 1' + b"0" * 5_000 + b"}",
    ],
)
def test_what_is_no_state_is_refused(states, content):
    states.write_bytes(content)
    with pytest.raises(WeightsError, match="latest.pdstates") as caught:
        read_states(states)
    assert len(str(caught.value)) < 600


def test_a_file_that_cannot_be_one_is_not_read(states):
    with states.open("wb") as stream:
        stream.truncate(LARGEST + 1)
    with pytest.raises(WeightsError, match="never have more than"):
        read_states(states)
    states.unlink()
    with pytest.raises(WeightsError, match="cannot read"):
        read_states(states)


WRONG = [
    None,
    True,
    0,
    -1,
    0.5,
    2**70,
    "x",
    "x" * 10_000,
    [],
    [1],
    [[]],
    {},
    {"a": None},
    {"a": {"b": []}},
    {"a": [1]},
]
ALLOWED = {
    "epoch": [],
    "batch": [0],
    "step": [0],
    "seen_batches": [0],
    "seen_images": [0],
    "seed": [0],
    "threads": [0],
    "teacher_threads": [0],
    "batches": [{}],
    "waited": [0],
    "best": [{}],
    "best_score": [None, 0, -1, 0.5],
    "best_epoch": [None],
    "best_ema_score": [None, 0, -1, 0.5],
    "best_ema": [{}, {"top1_ema": 0.5}],
    "best_ema_epoch": [None, 3],
    "best_by": ["x", "x" * 10_000],
    "students": [{}],
    "lists": [{}],
    "judged_epoch": [None],
    "judged_score": [None, 0, -1, 0.5],
    "schedule": [{}, {"a": None}, {"a": {"b": []}}, {"a": [1]}],
    "meters": [[]],
    "engines": [{}],
    "hooks": [{}, {"a": {"b": []}}],
    "finished": [True],
    "files": [],
}


def test_all_fields_are_tried():
    assert ALLOWED.keys() == Progress.__dataclass_fields__.keys() | {"files"}


@pytest.mark.parametrize("name", ALLOWED)
def test_a_field_of_another_kind_is_named(states, name):
    """Whether there is a checksum or not: a file that was written wrong is no better than a damaged one."""
    for value in WRONG:
        same = [allowed for allowed in ALLOWED[name] if type(allowed) is type(value) and allowed == value]
        for content in (with_checksum(**{name: value}), json.dumps(of_format_1(**{name: value})).encode()):
            states.write_bytes(content)
            if same:
                assert read_states(states)
                continue
            with pytest.raises(
                WeightsError, match=rf"latest.pdstates is damaged: {name} is .*, expected"
            ) as caught:
                read_states(states)
            assert len(str(caught.value)) < 600


@pytest.mark.parametrize("pair", [[], [1.0], [1.0, 2.0, 3.0], [1.0, None], [1.0, True], {"a": 1.0}])
def test_sums_have_counts(states, pair):
    states.write_bytes(with_checksum(meters=[{"loss": [1.0, 2]}, {"loss": pair}]))
    with pytest.raises(WeightsError, match="meters is a list, expected sums and counts"):
        read_states(states)


@pytest.mark.parametrize("name", ["files", "epoch", "batch", "step", "seed"])
def test_what_every_state_has_must_be_there(states, name):
    content = of_format_1()
    del content[name]
    states.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=f"has no '{name}'"):
        read_states(states)


@pytest.mark.parametrize(
    "files",
    [
        {".pdparams": {"size": 1, "crc32": 1}},
        {**FILES, ".pdstates": {"size": 1, "crc32": 1}},
        {**FILES, ".pdema": {"size": 1}},
        {**FILES, ".pdema": {"size": 1, "crc32": -1}},
        {**FILES, "../x": {"size": 1, "crc32": 1}},
    ],
)
def test_files_that_no_checkpoint_has_are_refused(states, files):
    states.write_bytes(with_checksum(files=files))
    with pytest.raises(WeightsError, match="files is a map, expected sizes and checksums"):
        read_states(states)


# ------------------------------------------------------------------ whole runs


def run(path, *overrides):
    return main(["train", "-c", str(path), "--resume", "auto", *(p for o in overrides for p in ("-o", o))])


def test_a_run_goes_on_past_damage_and_through_it(recipe, write_recipe, tmp_path, capsys):
    """All that a run reads of its folder at once is damaged, but for one checkpoint."""
    path, folder = write_recipe(recipe), tmp_path / "output/resnet8"
    assert run(path) == 0
    whole = {file.name: file.read_bytes() for file in folder.glob("*.pd*")}
    rows = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    for tag, damage in (
        ("latest", lambda b: b.replace(b'"step": 6', b'"step": 5')),
        ("epoch_2", lambda b: b[:-100]),
        ("best_model", lambda b: b""),
    ):
        file = folder / f"{tag}.pdstates"
        assert damage(file.read_bytes()) != file.read_bytes()
        file.write_bytes(damage(file.read_bytes()))
    (folder / "config.yaml").write_bytes(b"Global: [\xff\n")
    (folder / "environment.json").write_bytes(b"{")
    (folder / "metrics.jsonl").write_bytes(b"\xff\x00\n".join([*rows[:2], b"[" * 50_000, *rows[2:]]))
    capsys.readouterr()
    assert run(path) == 0
    printed = capsys.readouterr().out
    assert printed.count("skipped: ") == 2
    assert "latest.pdstates is damaged: its content is not that of its checksum" in printed
    assert "epoch_2.pdstates is not a checkpoint state of ppcls, or it is damaged" in printed
    assert f"resumed {folder / 'epoch_1'}: epoch 2 of 2" in printed
    assert "damaged lines were left out" in printed
    del whole["best_model.pdstates"]  # the first epoch was the best: nothing is written there again
    assert whole.items() <= {file.name: file.read_bytes() for file in folder.glob("*.pd*")}.items()
    kept = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [(row["kind"], row["step"]) for row in kept]
    assert [step for step in steps if step[0] != "epoch"][-4:] == [
        ("train", 4), ("train", 5), ("train", 6), ("eval", 6),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    slow_unless(
        lambda content: content in (b"3\n", b"", b"[" * 9999),
        [b"Global: 3\n", b"3\n", b"Global: {epochs: x}\n", b"", b"\xff", b"[" * 9999],
    ),
)
def test_a_damaged_config_does_not_stop_a_resume(recipe, write_recipe, tmp_path, content):
    path, folder = write_recipe(recipe), tmp_path / "output/resnet8"
    assert run(path, "Global.epochs=1") == 0
    before = json.loads((folder / "latest.pdstates").read_text())["step"]
    (folder / "config.yaml").write_bytes(content)
    assert run(path, "Global.epochs=2") == 0
    after = json.loads((folder / "latest.pdstates").read_text())["step"]
    assert (before, after) == (3, 6), "a finished run that is given more epochs continues"
    assert run(path, "Global.epochs=2") == 0
    assert json.loads((folder / "latest.pdstates").read_text())["step"] == 6


def test_a_checkpoint_of_the_old_format_resumes_exactly(recipe, write_recipe, tmp_path):
    path, folder = write_recipe(recipe), tmp_path / "output/resnet8"
    assert run(path) == 0
    whole = {file.name: file.read_bytes() for file in folder.glob("*.pd*")}
    for tag in ("latest", "best_model", "epoch_2"):
        for file in folder.glob(f"{tag}.*"):
            file.unlink()
    file = folder / "epoch_1.pdstates"
    content = json.loads(file.read_text())
    for name in ("crc32", "best_by", "students"):
        del content[name]
    file.write_text(json.dumps({**content, "format": 1}, indent=1))
    assert run(path) == 0
    assert (folder / "latest.pdstates").read_bytes() == whole["latest.pdstates"]


def test_a_schedule_of_another_kind_is_refused():
    from ppcls.optimizer import build_schedule
    from ppcls.optimizer.joint import restore_schedule

    schedule = build_schedule({"name": "Cosine", "learning_rate": 0.1}, 2, 3)
    good = schedule.state_dict()
    for state in (
        {},
        {"last_epoch": "x", "last_lr": 0.1},
        {**good, "last_lr": [1]},
        {**good, "last_epoch": None},
    ):
        with pytest.raises(WeightsError, match="latest.pdstates: the state of the learning-rate schedule"):
            restore_schedule(schedule, state, "latest.pdstates")
    restore_schedule(schedule, good, "latest.pdstates")


# ------------------------------------------------------------------ metrics.jsonl


def test_damaged_lines_are_left_out_and_the_rest_stays(tmp_path, caplog):
    file = tmp_path / "metrics.jsonl"
    good = [
        json.dumps({"kind": "train", "epoch": 1, "step": step, "loss": 0.5}).encode() for step in range(9)
    ]
    bad = [
        b"",
        b"{",
        b"3",
        b"[]",
        b"null",
        b"\x00" * 40,
        b"\xff\xfe",
        b"{}",
        b'{"kind": "train", "epoch": 1}',
        b'{"kind": 3, "epoch": 1, "step": 1}',
        b'{"kind": "train", "epoch": 1, "step": "1"}',
        b'{"kind": "train", "epoch": null, "step": 1}',
        b'{"kind": "train", "epoch": 1, "step": 1' + b"0" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ]
    lines = [*good, *bad]
    random.Random(3).shuffle(lines)
    file.write_bytes(b"\n".join(lines) + b'\n{"kind": "train", "epo')
    with caplog.at_level("WARNING", "ppcls"):
        kept = cut_back(file, lambda row: row["step"] < 7)
    assert sorted(kept.splitlines()) == sorted(good[:7])
    assert kept.endswith(b"\n")
    assert f"{file}: {len(bad)} damaged lines were left out" in caplog.text
    caplog.clear()
    file.write_bytes(kept)
    assert cut_back(file, lambda row: True) is None
    file.write_bytes(kept + good[7])  # whole, but for the end of the line: another row would be glued to it
    assert cut_back(file, lambda row: True) == kept
    assert not caplog.records


def test_a_checkpoint_is_checked_before_its_tensors_are_read(tmp_path, monkeypatch):
    from ppcls.engine.checkpoint import files as checkpoint

    Checkpointer(tmp_path).save("latest", {"w": np.ones(3, "float32")}, {}, PROGRESS)
    (tmp_path / "latest.pdparams").write_bytes(b"something else")
    monkeypatch.setattr(checkpoint, "read_params", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(WeightsError, match="latest.pdparams is damaged or not of the same save"):
        Checkpointer(tmp_path).load("latest")
