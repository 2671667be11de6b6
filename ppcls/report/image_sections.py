"""The sections of a run's page about classes and single images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppcls.report.answers import Answers
from ppcls.report.class_scores import class_scores, confused_pairs, confusion_matrix
from ppcls.report.html import Cell, Column, both, escaped, note, number_cell, section, table, text_cell
from ppcls.report.record import Record

WRONG_IMAGES = 24
_WHOLE = 20  # classes whose matrix is shown completely
_CONDENSED = 16  # of more classes, the ones with the most mistakes
_PAIRS = 12
_PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+")
_TALL = 15  # rows of a table that scrolls inside its frame


def _titles(record: Record, classes: int) -> list[str]:
    names = record.run.class_names or []
    return [names[number] if number < len(names) else str(number) for number in range(classes)]


def _known(record: Record) -> tuple[Answers, np.ndarray] | None:
    """Return the answers of the evaluation, and those of the student among them."""
    answers = record.answers
    student = record.student
    if answers is None or student is None or student.title not in answers.networks:
        return None
    return answers, answers.networks[student.title].predicted


def confusion(record: Record) -> str:
    """Return how often images of each class were taken for each class."""
    known = _known(record)
    if known is None:
        return ""
    answers, predicted = known
    titles = _titles(record, answers.classes)
    pairs = confused_pairs(answers.label, predicted, answers.classes)
    if answers.classes <= _WHOLE:
        matrix = confusion_matrix(answers.label, predicted, answers.classes)
        shown = list(range(answers.classes))
        text = both("Rows are true classes, columns are predicted ones.", "行为真实类别，列为预测类别。")
    else:
        shown = _most_confused(pairs, answers.classes)
        matrix = _condensed(answers.label, predicted, shown)
        text = both(
            "Rows are true classes, columns are predicted ones. "
            f"Of {answers.classes} classes, the {len(shown)} with the most mistakes among each other; the "
            "last column sums up all other classes.",
            f"行为真实类别，列为预测类别。共 {answers.classes} 个类别，这里是相互混淆最多的 {len(shown)} 个；"
            "最后一列为其余类别之和。",
        )
    grid = _grid(matrix, [titles[number] for number in shown], condensed=answers.classes > _WHOLE)
    listed = _pairs(pairs, answers, titles)
    content = (
        f'<div class="two wide"><div class="scroll">{grid}</div>'
        f"<div><h3>{both('Most frequent mistakes', '最常见的错误')}</h3>{listed}</div></div>"
    )
    return section(both("Confusion matrix", "混淆矩阵"), content + note(text), name="confusion")


def _most_confused(pairs: np.ndarray, classes: int) -> list[int]:
    """Return the classes with the most mistakes among them, in their order.

    Pairs are taken in order of their mistakes, so that a class stands there together with the one that it is
    mistaken for.
    """
    chosen: dict[int, None] = {}
    for true, taken, _ in pairs.tolist():
        both_classes = [number for number in (true, taken) if number not in chosen]
        if len(chosen) + len(both_classes) <= _CONDENSED:
            chosen.update(dict.fromkeys(both_classes))
    return sorted(chosen) or list(range(min(_CONDENSED, classes)))


def _condensed(label: np.ndarray, predicted: np.ndarray, shown: Sequence[int]) -> np.ndarray:
    """Return the rows of some classes, int [n, n + 1]; the last column is the sum over all other classes."""
    places = {number: place for place, number in enumerate(shown)}
    matrix = np.zeros((len(shown), len(shown) + 1), np.int64)
    for row in np.flatnonzero(np.isin(label, shown)):
        matrix[places[int(label[row])], places.get(int(predicted[row]), len(shown))] += 1
    return matrix


def _grid(matrix: np.ndarray, titles: Sequence[str], *, condensed: bool) -> str:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    heads = [*titles, *(["…"] if condensed else [])]
    head = "".join(f'<th scope=col><div title="{escaped(name)}">{escaped(name)}</div></th>' for name in heads)
    lines = []
    for row, name in enumerate(titles):
        cells = [
            _square(int(matrix[row, column]), float(shares[row, column]), column == row)
            for column in range(matrix.shape[1])
        ]
        lines.append(f'<tr><th scope=row title="{escaped(name)}">{escaped(name)}</th>{"".join(cells)}</tr>')
    top = f"<thead><tr><th></th>{head}</tr></thead>"
    return f'<table class="matrix">{top}<tbody>{"".join(lines)}</tbody></table>'


def _square(count: int, share: float, right: bool) -> str:
    if not count:
        return "<td></td>"
    strength = share**0.5
    hue = "37,99,235" if right else "217,70,20"
    color = "#fff" if strength > 0.6 else "#1f2933"
    return f'<td style="background:rgba({hue},{0.08 + 0.92 * strength:.2f});color:{color}">{count}</td>'


def _pairs(pairs: np.ndarray, answers: Answers, titles: Sequence[str]) -> str:
    if not len(pairs):
        return note(both("There were none.", "没有。"))
    support = np.bincount(answers.label, minlength=answers.classes)
    columns = [
        Column(both("true class", "真实类别")),
        Column(both("taken for", "误认为")),
        Column(both("images", "图像数"), number=True),
        Column(both("of the class", "占该类别"), number=True),
    ]
    rows = [
        [
            text_cell(titles[true]),
            text_cell(titles[taken]),
            number_cell(count, "{:.0f}"),
            _share(count / support[true]),
        ]
        for true, taken, count in pairs[:_PAIRS].tolist()
    ]
    return table(columns, rows)


def classes(record: Record) -> str:
    """Return precision, recall and F1 of each class, sorted by a click."""
    known = _known(record)
    if known is None:
        return ""
    answers, predicted = known
    titles = _titles(record, answers.classes)
    scores = class_scores(answers.label, predicted, answers.classes)
    teachers = [t for t in record.teachers if t.title in answers.networks]
    hits = {
        teacher.title: np.bincount(
            answers.label[answers.networks[teacher.title].predicted == answers.label],
            minlength=answers.classes,
        )
        for teacher in teachers
    }
    columns = [
        Column("#", number=True),
        Column(both("class", "类别")),
        Column(both("recall", "召回率"), number=True),
        Column(both("precision", "精确率"), number=True),
        Column("F1", number=True),
        Column(both("images", "图像数"), number=True),
        *(Column(both("recall of ", "召回率：") + escaped(t.title), number=True) for t in teachers),
    ]
    rows = []
    for number, title in enumerate(titles):
        support = int(scores.support[number])
        recalls = [float(hits[t.title][number]) / support if support else None for t in teachers]
        rows.append(
            [
                number_cell(number, "{:.0f}"),
                text_cell(title),
                _share(float(scores.recall[number])),
                _share(float(scores.precision[number])),
                _share(float(scores.f1[number])),
                number_cell(support, "{:.0f}"),
                *(_share(value) for value in recalls),
            ]
        )
    macro = scores.averages()["macro"]
    averages = ", ".join(f"{name} {value * 100:.1f} %" for name, value in macro.items())
    text = both(
        f"A click on a title sorts the table. Averages over the classes: {averages}.",
        f"点击标题可排序。各类别平均：{averages}。",
    )
    content = table(columns, rows, sorts=True, tall=len(rows) > _TALL) + note(text)
    return section(both("Classes", "各类别"), content, long=True, name="classes")


def _share(value: float | None) -> Cell:
    return number_cell(None if value is None else value * 100, "{:.1f} %")


# ---------------------------------------------------------------- images


def wrong_images(record: Record) -> str:
    """Return the images on which the student is wrong and most certain, with the answers of all networks."""
    known = _known(record)
    if known is None or record.student is None:
        return ""
    answers, predicted = known
    titles = _titles(record, answers.classes)
    stored = _stored_images(record)
    cards = []
    small = True
    for row in answers.most_wrong(record.student.title, WRONG_IMAGES):
        image = stored.get(int(answers.index[row]), {})
        small = small and image.get("side", 0) <= 64
        cards.append(_image_card(record, answers, row, image, titles))
    count = int((predicted != answers.label).sum())
    text = both(
        f"The student is wrong on {count:,} of {len(predicted):,} images; these are its most confident "
        "mistakes. Look at them first: often a label is wrong.",
        f"学生在 {len(predicted):,} 张图像中答错 {count:,} 张，这里是其中最自信的错误。"
        "请先检查它们：往往是标签有误。",
    )
    kind = "images small" if small and cards else "images"
    content = note(text) + f'<div class="{kind}">{"".join(cards)}</div>'
    return section(both("Most confident mistakes", "最自信的错误"), content, long=True, name="mistakes")


def _stored_images(record: Record) -> dict[int, Mapping[str, Any]]:
    listed = record.facts.get("images")
    found: dict[int, Mapping[str, Any]] = {}
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("index"), int):
            found[entry["index"]] = entry
    return found


def _image_card(
    record: Record, answers: Answers, row: int, image: Mapping[str, Any], titles: Sequence[str]
) -> str:
    label = int(answers.label[row])
    file = str(image.get("file") or f"#{int(answers.index[row])}")
    picture = image.get("picture")
    if isinstance(picture, str) and _PICTURE.fullmatch(picture):
        shown = f'<img src="{picture}" alt="{escaped(titles[label])}">'
    else:
        shown = f'<div class="none">{both("no picture stored", "未保存图像")}</div>'
    lines = [f"<div><b>{escaped(titles[label])}</b></div>"]
    for network in reversed(record.networks):
        answer = answers.networks.get(network.title)
        if answer is None:
            continue
        taken = int(answer.predicted[row])
        kind = "good" if taken == label else "bad"
        who = escaped(network.title or network.network)
        name = escaped(titles[taken])
        lines.append(
            f'<div title="{who}: {name}">{who}: {answer.score[row]:.0%} '
            f'<span class="{kind}">{name}</span></div>'
        )
    lines.append(f'<div class="file" title="{escaped(file)}"><bdi>{escaped(file)}</bdi></div>')
    return f'<div class="image">{shown}{"".join(lines)}</div>'
