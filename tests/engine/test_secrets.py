"""What a run writes shows no password or token of an address it was given."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from ppcls.engine.build import run_files
from ppcls.engine.checkpoint.changes import find_changes, read_run_config, report_changes
from ppcls.logger import open_log, setup_logging

URL = "https://user:secret@example.org/w.pdparams?token=secret"
CONFIG = {
    "Arch": {"name": "resnet8", "pretrained": URL},
    "Global": {"epochs": 1, "notes": [URL, "plain?text=1"]},
}


def test_files_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ppcls", "train", "-o", f"Arch.pretrained={URL}"])
    files = run_files(CONFIG)
    assert {"config.yaml", "environment.json"} <= files.keys()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        text = content.decode()
        assert "secret" not in text
        assert "https://***@example.org/w.pdparams?***" in text
    written = read_run_config(tmp_path)
    assert written is not None
    assert find_changes(written, CONFIG) == []
    assert written["Global"]["notes"][1] == "plain?text=1"


def test_log_and_report_of_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(hold=True)
    open_log(tmp_path / "train.log")
    changed = {**CONFIG, "Arch": {"name": "resnet8", "pretrained": URL.replace("w.", "v.")}}
    report_changes(CONFIG, changed, "latest")
    logging.getLogger("ppcls.weights").info("downloading %s", URL)
    for text in (capsys.readouterr().out, (tmp_path / "train.log").read_text(encoding="utf-8")):
        assert "secret" not in text
        assert "https://***@example.org/v.pdparams?***" in text
        assert "downloading https://***@example.org/w.pdparams?***" in text
