"""The pages in a real browser: sorting, language, values under the pointer, and how wide they are."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from run_folders import write_run, write_some_answers

from ppcls.report import write_comparison, write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium")]
# What every script may use: the texts of a column, and whether an element can be seen.
TOOLS = """
function column(table, number) {
  return Array.prototype.map.call(table.tBodies[0].rows, row => row.cells[number].innerText.trim());
}
function seen(text) { return document.body.innerText.indexOf(text) >= 0; }
"""


def run_in_browser(page: Path, script: str) -> dict:
    """Open a page, run a script that returns an object, and return that object."""
    changed = page.with_name(f"with_script_{page.name}")
    wrapped = f"""<script>{TOOLS}
    window.addEventListener("error", event => {{ document.title = "failed: " + event.message; }});
    var result = (function () {{ {script} }})();
    var place = document.createElement("pre");
    place.id = "result";
    place.textContent = JSON.stringify(result);
    document.body.appendChild(place);
    </script></body>"""
    changed.write_text(page.read_text("utf-8").replace("</body>", wrapped), "utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,2000"]
    profile = page.parent / "profile"
    command += [f"--user-data-dir={profile}", "--lang=en-US", "--dump-dom", changed.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'<pre id="result">(.*?)</pre>', shown, re.DOTALL)
    assert found, shown[-2000:]
    assert "<title>failed" not in shown
    return json.loads(html.unescape(found[1]))


@pytest.fixture
def report(tmp_path):
    write_run(tmp_path / "alone" / "resnet8", arch={"name": "resnet8", "class_num": 4}, top1=0.7)
    run = write_run(tmp_path / "kd" / "DistillationModel", names=["pear", "apple", "lime", "fig"])
    write_some_answers(run)
    return write_report(run)


def test_a_click_sorts_the_classes(report):
    found = run_in_browser(
        report,
        """
        var table = document.querySelector("#classes table");
        var heads = table.tHead.rows[0].cells;
        var out = {before: column(table, 1)};
        heads[1].click(); out.names = column(table, 1); out.sort = heads[1].getAttribute("aria-sort");
        heads[1].click(); out.reversed = column(table, 1);
        heads[2].click(); out.recall = column(table, 2); out.other = heads[1].getAttribute("aria-sort");
        heads[0].dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"})); out.numbers = column(table, 0);
        return out;
        """,
    )
    assert found["before"] == ["pear", "apple", "lime", "fig"]
    assert found["names"] == sorted(found["before"])
    assert found["sort"] == "ascending"
    assert found["reversed"] == sorted(found["before"], reverse=True)
    assert found["other"] == "none"
    recalls = [float(text.removesuffix("%")) for text in found["recall"]]
    assert recalls == sorted(recalls, reverse=True)
    assert found["numbers"] == ["3", "2", "1", "0"]


def test_a_click_changes_the_language(report):
    found = run_in_browser(
        report,
        """
        var button = document.getElementById("language");
        var out = {first: [seen("Accuracy"), seen("准确率"), document.documentElement.lang]};
        button.click(); out.second = [seen("Accuracy"), seen("准确率"), document.documentElement.lang];
        button.click(); out.third = [seen("Accuracy"), seen("准确率"), document.documentElement.lang];
        return out;
        """,
    )
    assert found["first"] == found["third"] == [True, False, "en"]
    assert found["second"] == [False, True, "zh-CN"]


def test_the_pointer_reads_values_from_a_curve(report):
    found = run_in_browser(
        report,
        """
        var chart = document.querySelector(".chart"), svg = chart.querySelector("svg");
        var values = () => Array.prototype.map.call(chart.querySelectorAll(".legend b"), b => b.textContent);
        var box = svg.getBoundingClientRect(), out = {last: values()};
        var at = {clientX: box.left + box.width * 0.3, clientY: box.top + 50, bubbles: true};
        svg.dispatchEvent(new PointerEvent("pointermove", at)); out.there = values();
        svg.dispatchEvent(new PointerEvent("pointerleave", at)); out.left = values();
        return out;
        """,
    )
    assert found["last"] == found["left"] != found["there"]
    assert found["last"][0] == "80.00 %"
    assert found["there"][0] == "20.00 %"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["report", "compare"])
def test_nothing_is_wider_than_the_window(report, tmp_path, kind, width):
    page = report if kind == "report" else write_comparison([tmp_path], tmp_path / "compare.html")
    frame = tmp_path / "frame.html"  # windows cannot be as narrow as a phone, frames can
    content = html.escape(page.read_text("utf-8"))
    style = f"width:{width}px;height:900px;border:0"
    frame.write_text(f'<body><iframe style="{style}" srcdoc="{content}"></iframe></body>', "utf-8")
    found = run_in_browser(
        frame,
        """
        var out = {}, frame = document.querySelector("iframe");
        frame.addEventListener("load", function () {
          out.page = frame.contentDocument.documentElement.scrollWidth;
          out.frame = frame.contentWindow.innerWidth;
          document.getElementById("result").textContent = JSON.stringify(out);
        });
        return out;
        """,
    )
    assert found["page"] <= found["frame"] == width


def test_a_click_sorts_the_runs(report, tmp_path):
    page = write_comparison([tmp_path], tmp_path / "compare.html")
    found = run_in_browser(
        page,
        """
        var table = document.querySelector("#runs table");
        var heads = Array.from(table.tHead.rows[0].cells);
        var score = heads.findIndex(head => head.innerText.startsWith("score"));
        table.tHead.rows[0].cells[score].click();
        table.tHead.rows[0].cells[score].click();
        return {scores: column(table, score)};
        """,
    )
    assert found["scores"] == ["70.00 %", "80.00 %"]
