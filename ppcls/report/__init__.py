"""Output for people: tables, pictures, pages and descriptions of data, networks, runs and evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write_report(run_folder: Path, baseline: Path | None = None) -> Path:
    """Write ``report.html`` into the folder of a run; see :func:`ppcls.report.page.write_report`."""
    from ppcls.report import page  # commands that only need a table do not wait for the rest

    return page.write_report(run_folder, baseline)


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Write a page that compares runs; see :func:`ppcls.report.comparison_page.write_comparison`."""
    from ppcls.report import comparison_page

    return comparison_page.write_comparison(folders, out)
