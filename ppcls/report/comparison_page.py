"""A page that compares runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ppcls.files import write_atomic
from ppcls.report.charts import COLORS, Line, chart
from ppcls.report.comparison import Group, Row, compare, evaluations_differ, groups_of
from ppcls.report.comparison_text import OTHER_IMAGES
from ppcls.report.html import Cell, Column, both, escaped, note, number_cell, page, section, table, text_cell
from ppcls.report.words import amount, duration, percent

_CURVES = 24  # runs whose curves are drawn
_NAMED = 6  # runs that all have their names in the legend


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Write a page that compares runs, in one file; return its path.

    Args:
        folders: folders of runs, or folders that contain some.
        out: the file to write.

    Raises:
        ConfigError: for a folder without any run.
        WeightsError: if the file cannot be written.
    """
    content = render(compare(folders)).encode("utf-8")
    write_atomic(Path(out), lambda stream: stream.write(content))
    return Path(out)


def render(rows: Sequence[Row]) -> str:
    """Return the page."""
    groups = groups_of(rows)
    sections = [
        _recipes(groups),
        _runs(rows),
        _curves(rows),
    ]
    if evaluations_differ(rows):
        warning = both(OTHER_IMAGES, "这些训练使用了不同的评估图像，不能凭得分判断优劣。")
        sections.insert(0, note(f'<span class="bad">{warning}</span>'))
    heading = both(f"{len(rows)} runs compared", f"{len(rows)} 次训练的比较")
    subtitle = both(
        f"{len(groups)} recipes; runs of one recipe differ only in their seeds",
        f"{len(groups)} 个配方；同一配方的训练只有随机种子不同",
    )
    footer = both("Made by ppcls.", "由 ppcls 生成。")
    return page(f"{len(rows)} runs", heading, subtitle, filter(None, sections), footer)


def _color(row: Row) -> str:
    return COLORS[row.group % len(COLORS)]


def _swatch(number: int) -> str:
    return f'<i class="swatch" style="background:{COLORS[number % len(COLORS)]}"></i>{number + 1}'


def _value(row_or_group: float | None, *, is_share: bool = True) -> Cell:
    if row_or_group is None:
        return Cell("", None)
    return Cell(percent(row_or_group), row_or_group) if is_share else number_cell(row_or_group)


def _is_share(row: Row) -> bool:
    return "top1" in row.record.best


def _recipes(groups: Sequence[Group]) -> str:
    columns = [
        Column(both("recipe", "配方")),
        Column(both("student", "学生")),
        Column(both("teacher", "教师")),
        Column(both("losses", "损失")),
        Column(both("differs in", "不同之处")),
        Column(both("runs", "次数"), number=True),
        Column(both("mean", "均值"), number=True),
        Column("±", number=True),
    ]
    rows = []
    for group in groups:
        first = group.rows[0]
        spread = group.deviation
        rows.append(
            [
                Cell(_swatch(group.number), str(group.number + 1)),
                text_cell(first.network),
                text_cell(first.teacher),
                text_cell(first.losses),
                text_cell(first.differs_in),
                number_cell(len(group.counted), "{:.0f}"),
                _value(group.mean, is_share=_is_share(first)),
                Cell(
                    "" if spread is None else f"{spread * 100:.2f}" if _is_share(first) else f"{spread:.4f}",
                    spread,
                ),
            ]
        )
    text = both(
        "Mean and standard deviation (n − 1) over the finished runs of each recipe.",
        "每个配方已完成的各次训练的均值与标准差（n − 1）。",
    )
    return section(both("Recipes", "各配方"), table(columns, rows, sorts=True) + note(text), name="recipes")


def _runs(rows: Sequence[Row]) -> str:
    columns = [
        Column(both("recipe", "配方")),
        Column(both("run", "训练")),
        Column(both("score", "得分"), number=True),
        Column(both("teacher's", "教师得分"), number=True),
        Column(both("agreement", "一致率"), number=True),
        Column(both("best epoch", "最佳轮次"), number=True),
        Column(both("seed", "种子"), number=True),
        Column(both("parameters", "参数量"), number=True),
        Column(both("time", "用时"), number=True),
    ]
    lines = []
    for row in rows:
        run = row.record.run
        student = row.record.student
        parameters = None if student is None else student.parameters
        seconds = row.record.seconds
        seed = run.settings.get("seed")
        unfinished = "" if run.finished else f' <span class="bad">{both("not finished", "未完成")}</span>'
        lines.append(
            [
                Cell(_swatch(row.group), str(row.group + 1)),
                Cell(escaped(row.name) + unfinished, row.name),
                _value(row.score, is_share=_is_share(row)),
                _value(row.teacher_accuracy),
                _value(row.agreement),
                number_cell(run.best_epoch, "{:.0f}"),
                number_cell(seed if isinstance(seed, int) else None, "{:.0f}"),
                Cell(amount(parameters), parameters),
                Cell(duration(seconds), seconds),
            ]
        )
    return section(both("Runs", "各次训练"), table(columns, lines, sorts=True), long=True, name="runs")


def _curves(rows: Sequence[Row]) -> str:
    shown = rows[:_CURVES]
    pictures = [picture for picture in _pictures(shown) if picture]
    if not pictures:
        return ""
    text = note(both("Against epochs; one colour for each recipe.", "横轴为轮数；每个配方一种颜色。"))
    if len(rows) > len(shown):
        text += note(
            both(
                f"The first {len(shown)} of {len(rows)} runs.", f"{len(rows)} 次训练中的前 {len(shown)} 次。"
            )
        )
    content = f'<div class="charts">{"".join(pictures)}</div>{text}'
    return section(both("Curves", "曲线"), content, name="curves")


def _pictures(rows: Sequence[Row]) -> Iterator[str]:
    labelled = _labelled(rows)
    for kind, name, title, form in (
        ("eval", "top1", both("top-1 in evaluations", "评估 top-1"), "%"),
        ("eval", "loss", both("loss in evaluations", "评估损失"), ".4f"),
        ("epoch", "top1", both("top-1 in training", "训练 top-1"), "%"),
        ("epoch", "loss", both("loss in training", "训练损失"), ".4f"),
        ("train", "lr", both("learning rate", "学习率"), ".3g"),
    ):
        lines = [Line(label, *row.record.series(kind, name), color=_color(row)) for label, row in labelled]
        yield chart(title, lines, form=form, clipped=name == "loss")


def _labelled(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """Return the names of runs in the legends; of many runs, only the first of each recipe has one."""
    if len(rows) <= _NAMED:
        return [(escaped(row.name), row) for row in rows]
    named: set[int] = set()
    found = []
    for row in rows:
        label = "" if row.group in named else f"{row.group + 1} {escaped(row.differs_in or row.network)}"
        named.add(row.group)
        found.append((label, row))
    return found
