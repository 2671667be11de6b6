"""The last lines of a run."""

from __future__ import annotations

import os

from run_folders import write_run

from ppcls.report.record import read_record
from ppcls.report.summary import render_summary


def test_an_export_of_earlier_weights_is_named(tmp_path):
    folder = write_run(tmp_path / "run")
    best = folder / "best_model.pdparams"
    best.write_bytes(b"")
    exported = folder / "inference/inference.yml"
    exported.parent.mkdir()
    exported.write_text("")
    for age, is_named in ((-10, False), (10, True)):
        os.utime(best, (exported.stat().st_mtime + age,) * 2)
        shown = render_summary(read_record(folder))
        assert ("inference holds earlier weights" in shown) == is_named
        assert f"ppcls export {folder}" in shown
