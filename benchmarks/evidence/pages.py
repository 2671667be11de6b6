"""The pages of results, made from the lines of the runs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evidence import plots
from evidence.comparisons import (
    BY_LABELS,
    CIFAR,
    FASHION,
    FASHION_ALL,
    KINDS,
    REASONS,
    SETTINGS,
    TOGETHER,
    WARMED,
    WARMUP,
    warmed,
)
from evidence.guide import guide
from evidence.marks import fill
from evidence.methods import METHODS, PUBLISHED_BASELINE
from evidence.questions import KD, LABELS, QUESTIONS, TEACHERS, VIEWS
from evidence.runner import rows_of
from evidence.settings import DOCS, Setting
from evidence.statistics import Gain, gains, mean, pooled_deviation, spearman, spread
from evidence.tables import BASE, pool_of, runs_of
from evidence.timing import TIMES

PAGE = DOCS / "results_methods.md"
_PUBLISHED = DOCS / "images" / "results_published.png"
_TOGETHER = DOCS / "images" / "results_together.png"
_SEVERAL = 3  # comparisons that a method needs to be in the table of all
_ENOUGH = 10  # methods; with fewer an order says little
_CLEAR = 0.01  # p-value of a correlation that is shown as clear
_ORDER_PICTURE = "![Published gains and ours](images/results_published.png)"
_GUIDES = {"which_method.md": "", "which_method_zh.md": "_zh"}
_ANSWERED = {  # settings that answer a question, which has a plot of its own
    **{setting.key: () for setting in (*BY_LABELS, FASHION_ALL) if setting != CIFAR},
    BY_LABELS[0].key: (LABELS,),
    "cifar10_teachers": (TEACHERS,),
    "cifar10_kd": (KD, VIEWS),
}
_HEADER = """# Every method on the same real images

Made by `python benchmarks/methods.py table` from the lines of `results_*.jsonl`, one for each run. The
command above each table trains what is missing in it, and can be stopped and started at any time.

A gain is the difference from the mean of the labels alone (`baseline`), in points of top-1; it is given with
its 95 % interval. Three runs say little about the deviation of one method, so the deviation between seeds is
estimated from all methods of a table together. A method of which single runs fail (its variance is larger
than that of all others with p < 0.0001 in an F test) has an interval from its own runs.

Hyper-parameters are those of the recipes for CIFAR-100 (`configs/cifar/`), without a search on these images;
the only exception is MGD's factor on Fashion-MNIST. Warm-ups and decays are shortened with the run.

Seconds are the processor time of a run, with the teacher's outputs already stored. Other programs used the
machine at the same time, so differences of a fifth say nothing. {total}
"""


def render() -> dict[Path, str]:
    """Return the text of every page, or of the part that is made here put into the page as it is."""
    order = _order()
    settings = [setting for setting in SETTINGS.values() if BASE in runs_of(setting)]
    later = [setting for setting in SETTINGS.values() if setting not in settings]
    text = _HEADER.format(total=_total(settings)) + "".join(_section(setting) for setting in settings)
    text += f"\n## Does the published order hold?\n\n{_ORDER_PICTURE}\n\n{order}\n{_not_run(later)}"
    pages = {PAGE: text}
    for name, suffix in _GUIDES.items():
        pages[DOCS / name] = fill((DOCS / name).read_text("utf-8"), "methods", guide(suffix))
    results = DOCS / "results.md"
    pages[results] = results.read_text("utf-8")
    for name, text in {
        **{q.key: q.answer() for q in QUESTIONS},
        "together": _together(),
        "kinds": _kinds(),
        "cost": _cost(),
        "order": order,
        "reasons": _reasons(),
        "warmup": _warmup(),
    }.items():
        pages[results] = fill(pages[results], name, text)
    for page, rows in _measured():
        pages[page] = _with_rows(page, rows)
    return pages


def write() -> None:
    """Write all pages and plots."""
    for path, text in render().items():
        path.write_text(text, encoding="utf-8")
        print(path)
    for question in QUESTIONS:
        if question.draw():
            print(DOCS / question.path)
    for setting in SETTINGS.values():
        runs = runs_of(setting)
        if BASE in runs and setting.key not in _ANSWERED:
            path = _plot(setting)
            plots.draw_gains(runs, gains(runs, BASE, pool_of(setting)), BASE, setting.title, path)
            print(path)
    columns = {title: (runs_of(setting), gains(runs_of(setting), BASE)) for setting, title in _compared()}
    if columns:
        plots.draw_together(columns, _relied_on(), BASE, _TOGETHER)
        print(_TOGETHER)
    panels = {setting.title: _published(setting) for setting in (CIFAR, FASHION)}
    panels = {title: points for title, points in panels.items() if points}
    if panels:
        plots.draw_against(panels, "published gain, CIFAR-100, resnet32x4 → resnet8x4, points", _PUBLISHED)


def _total(settings: list[Setting]) -> str:
    """Say how long all runs took; a run whose time is not known counts as the mean of its setting."""
    count, seconds = 0, 0.0
    for rows in (rows_of(setting.results) for setting in settings):
        known = [row["cpu_seconds"] for row in rows if "cpu_seconds" in row]
        count += len(rows)
        seconds += mean(known or [0.0]) * len(rows)
    return f"All {count} runs\nof this page together took about {seconds / 3600:.0f} hours of processor time."


def _pictures(setting: Setting) -> list[str]:
    """Return the pictures of a section; settings of the same question have theirs in the first section."""
    if setting.key not in _ANSWERED:
        return [f"![Gains of all methods](images/{_plot(setting).name})"]
    return [question.picture for question in _ANSWERED[setting.key] if question.found()]


def _plot(setting: Setting) -> Path:
    return DOCS / "images" / f"results_{setting.key}.png"


def _section(setting: Setting) -> str:
    runs, rows = runs_of(setting), rows_of(setting.results)
    found = gains(runs, BASE, pool_of(setting))
    count = len(rows)
    sigma, freedom = pooled_deviation(pool_of(setting))
    seconds = _seconds(rows)
    alone = f"labels alone (`{BASE}`) | {spread(runs[BASE])} | | {_single(runs[BASE])}"
    lines = [
        "| method | top-1 %, mean ± std | gain in points | single runs | seconds |",
        "| --- | ---: | ---: | --- | ---: |",
        f"| {alone} | {seconds.get(BASE, '')} |",
    ]
    for name in sorted(found, key=lambda name: -found[name].mean):
        link = f"[{name}](methods/{METHODS[name].page}.md)" if name in METHODS else name
        cells = [link, spread(runs[name]), str(found[name]), _single(runs[name]), seconds.get(name, "")]
        lines.append(f"| {' | '.join(cells)} |")
    names = [*setting.methods(METHODS), *(variant.name for variant in setting.variants)]
    missing = [name for name in names if name not in runs]
    few = [name for name in runs if len(runs[name]) < 3]
    reused = [variant.name for variant in setting.variants if variant.reused and variant.name in runs]
    notes = []
    if reused:
        text = f"Runs of the section {SETTINGS[setting.reference].title}: {'; '.join(reused)}."
        notes.append(textwrap.fill(text, 118))
    if few:
        notes.append(textwrap.fill(f"Fewer than three runs so far: {'; '.join(few)}.", 118))
    if missing:
        notes.append(textwrap.fill(f"Not run yet: {'; '.join(missing)}.", 118))
    deviation = (
        f"; deviation between seeds {sigma:.2f} points, {freedom} degrees of freedom" if freedom else ""
    )
    return "\n".join(
        [
            f"\n## {setting.title}\n",
            textwrap.fill(setting.text, 118),
            f"\n```bash\npython benchmarks/methods.py run --settings {setting.key}{setting.arguments}\n```\n",
            f"{count} {'runs' if count > 1 else 'run'}{deviation}.\n",
            *(f"{picture}\n" for picture in _pictures(setting)),
            *lines,
            *(f"\n{note}" for note in notes),
            "",
        ]
    )


def _seconds(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return the mean processor time of the runs of each method."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if "cpu_seconds" in row:
            found.setdefault(row["method"], []).append(row["cpu_seconds"])
    return {name: f"{mean(values):.0f}" for name, values in found.items()}


def _single(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _published(setting: Setting) -> dict[str, tuple[float, float, float]]:
    """Return for methods with a published figure: its gain, and our gain with half its interval."""
    runs = runs_of(setting)
    found = gains(runs, BASE) if BASE in runs else {}
    return {
        name: (method.published - PUBLISHED_BASELINE, found[name].mean, found[name].half)
        for name, method in METHODS.items()
        if method.published is not None and name in found
    }


def _order() -> str:
    """Return rank correlations of our gains with the published ones and with each other."""
    published = {
        name: method.published - PUBLISHED_BASELINE
        for name, method in METHODS.items()
        if method.published is not None
    }
    compared = _compared()
    columns = [published, *(_gains(setting) for setting, _ in compared)]
    names = ["published", *map(str, range(1, len(compared)))]
    lines = [
        "Rank correlations (Spearman) over the methods that both have; bold where p < "
        f"{_CLEAR} by 20,000 permutations.",
        "",
        f"| gains | {' | '.join(names)} |",
        f"| --- |{' ---: |' * len(names)}",
    ]
    for number, (_, title) in enumerate(compared, 1):
        cells = [_correlation(columns[number], other) for other in columns[:number]]
        cells += [""] * (len(names) - number)
        lines.append(f"| {number}: {title} | {' | '.join(cells)} |")
    better = {**_gains(CIFAR)}
    for variant in REASONS.variants:
        other = _gains(REASONS).get(variant.name, -99.0)
        better[variant.method] = max(better.get(variant.method, -99.0), other)
    lines += [
        "",
        "CIFAR-10 with 1,000 labels once more, losing methods with the better of their settings "
        f"(`cifar10_reasons`,\nchosen by these results), and the published gains: "
        f"{_correlation(published, better)}.",
    ]
    return "\n".join(lines)


def _gains(setting: Setting) -> dict[str, float]:
    runs = runs_of(setting)
    return {name: gain.mean for name, gain in gains(runs, BASE).items()} if BASE in runs else {}


def _correlation(first: Mapping[str, float], second: Mapping[str, float]) -> str:
    names = [name for name in first if name in second]
    if len(names) < _ENOUGH:
        return ""
    rho, p = spearman([first[name] for name in names], [second[name] for name in names])
    return f"**{rho:+.2f}**" if p < _CLEAR else f"{rho:+.2f}"


def _cost() -> str:
    """Return a table of the times of a step, which `timing` measured."""
    if not TIMES.exists():
        return "Not measured yet."
    measured = json.loads(TIMES.read_text("utf-8"))
    times = measured["step_ms"]
    lines = ["| method | milliseconds | compared with labels alone |", "| --- | ---: | ---: |"]
    for name in sorted(times, key=lambda name: float(times[name])):
        title = "labels alone" if name == BASE else f"[{name}](methods/{METHODS[name].page}.md)"
        lines.append(f"| {title} | {times[name]:.1f} | {times[name] / times[BASE]:.2f} |")
    return "\n".join([f"Processor: {measured['processor']}, one thread.", "", *lines])


def _compared() -> list[tuple[Setting, str]]:
    """Return the comparisons with runs, and their short titles."""
    return [(setting, title) for setting, title in TOGETHER if BASE in runs_of(setting)]


def _relied_on() -> list[str]:
    """Return the methods of several comparisons, the one with the best of all smallest gains first."""
    found: dict[str, list[float]] = {}
    for setting, _ in _compared():
        for name, value in _gains(setting).items():
            found.setdefault(name, []).append(value)
    names = [name for name, values in found.items() if len(values) >= _SEVERAL]
    return sorted(names, key=lambda name: -min(found[name]))


def _together() -> str:
    """Return the picture and the table of all methods in all comparisons; clear gains are bold."""
    columns = [gains(runs_of(setting), BASE) for setting, _ in _compared()]
    if not columns:
        return "Not run yet."
    titles = " | ".join(title for _, title in _compared())
    lines = [f"![Gains of all methods in all comparisons](images/{_TOGETHER.name})", ""]
    lines += [f"| method | {titles} | smallest |", f"| --- |{' ---: |' * (len(columns) + 1)}"]
    for name in _relied_on():
        cells = [_bold(found[name]) if name in found else "" for found in columns]
        smallest = min(found[name].mean for found in columns if name in found)
        link = f"[{name}](methods/{METHODS[name].page}.md)"
        lines.append(f"| {' | '.join([link, *cells, f'{smallest:+.2f}'])} |")
    return "\n".join(lines)


def _bold(gain: Gain) -> str:
    return f"**{gain}**" if gain.mean > gain.half else str(gain)


def _kinds() -> str:
    """Return the pictures of networks of different kinds, and a table for each pair."""
    parts = []
    for setting in KINDS:
        runs = runs_of(setting)
        if BASE not in runs:
            continue
        found = gains(runs, BASE)
        lines = [_pictures(setting)[0], "", "| method | top-1 % | gain |", "| --- | ---: | ---: |"]
        lines.append(f"| labels alone | {spread(runs[BASE])} | |")
        for name in sorted(found, key=lambda name: -found[name].mean):
            lines.append(f"| {name} | {spread(runs[name])} | {found[name]} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) or "Not run yet."


def _reasons() -> str:
    """Return methods with the settings for CIFAR-100 and with others."""
    runs, others = runs_of(CIFAR), runs_of(REASONS)
    lines = [
        "| method | with the settings for CIFAR-100 | other settings | with these |",
        "| --- | ---: | --- | ---: |",
        f"| labels alone | {spread(runs[BASE])} | | |",
    ]
    for variant in REASONS.variants:
        method, name = variant.method, variant.name.removeprefix(f"{variant.method}, ")
        link = f"[{method}](methods/{METHODS[method].page}.md)"
        usual = spread(runs[method]) if method in runs else ""
        other = spread(others[variant.name]) if variant.name in others else "not run yet"
        lines.append(f"| {link} | {usual} | {name} | {other} |")
    return "\n".join(lines)


def _warmup() -> str:
    """Return methods without and with a warm-up of the learning rate."""
    runs, others = runs_of(CIFAR), runs_of(WARMUP)
    lines = ["| method | as above | with a warm-up |", "| --- | ---: | ---: |"]
    for method in WARMED:
        other = others.get(warmed(method))
        name = "labels alone" if method == BASE else f"[{method}](methods/{METHODS[method].page}.md)"
        cells = [spread(runs[method]) if method in runs else "", spread(other) if other else "not run yet"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _not_run(settings: list[Setting]) -> str:
    if not settings:
        return ""
    lines = ["\n## Prepared, not run yet\n"]
    lines += [f"- `--settings {setting.key}`: {setting.title}" for setting in settings]
    return "\n".join([*lines, ""])


def _measured() -> Iterator[tuple[Path, list[str]]]:
    """Yield the pages of the methods with their rows under "Measured here"."""
    for page in sorted({method.page for method in METHODS.values() if method.page}):
        names = [name for name in METHODS if METHODS[name].page == page]
        for suffix in ("", "_zh"):
            rows = []
            for setting in (setting for setting in SETTINGS.values() if not setting.variants):
                runs = runs_of(setting)
                for name in names:
                    if name in runs and BASE in runs:
                        title = setting.title if len(names) == 1 else f"{setting.title}: {name}"
                        change = f"{spread(runs[BASE])} → {spread(runs[name])}"
                        rows.append(f"| [{title}](../results_methods.md) | {change} | {len(runs[name])} |")
            if rows:
                yield DOCS / "methods" / f"{page}{suffix}.md", rows


def _with_rows(page: Path, rows: list[str]) -> str:
    """Put rows into the table under "Measured here", which is made before the pitfalls if it is missing."""
    chinese = page.stem.endswith("_zh")
    heading = "## 本项目实测" if chinese else "## Measured here"
    table = (
        ["| 设置 | top-1 %:基线 → 蒸馏 | 随机种子数 |"]
        if chinese
        else ["| setting | top-1 %: labels alone → distilled | seeds |"]
    )
    lines = page.read_text(encoding="utf-8").split("\n")
    if heading not in lines:
        place = next(n for n, line in enumerate(lines) if line in ("## Pitfalls", "## 注意事项"))
        lines[place:place] = [heading, "", *table, "| --- | --- | --- |", ""]
    start = lines.index(heading) + 4
    end = next(n for n in range(start, len(lines)) if not lines[n].startswith("|"))
    return "\n".join([*lines[:start], *rows, *lines[end:]])
