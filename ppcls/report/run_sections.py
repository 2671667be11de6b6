"""The sections of a run's page that come from its recipe, its values and its log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ppcls.report.html import (
    Cell,
    Column,
    both,
    escaped,
    facts_table,
    note,
    number_cell,
    section,
    table,
)
from ppcls.report.record import NetworkFacts, Record
from ppcls.report.words import duration, factor, percent, points

_ROLES = {
    "teacher": both("teacher", "教师"),
    "ensemble": both("ensemble of teachers", "多个教师的均值"),
    "student": both("student", "学生"),
    "other": both("another student", "另一个学生"),
    "baseline": both("student alone (baseline)", "单独训练的学生（基线）"),
    "single": both("network", "网络"),
}


def role(record: Record, network: NetworkFacts) -> str:
    """Return what a network is in its run, as HTML."""
    return _ROLES["single" if len(record.networks) == 1 else network.role]


def cards(record: Record, baseline: Record | None) -> str:
    """Return the most important numbers."""
    student = record.student
    found: list[tuple[str, str, str]] = []
    own = None if student is None else record.accuracy(student)
    if own is not None:
        name = student.network if student is not None else ""
        found.append((percent(own), both("top-1 of ", "top-1：") + escaped(name), "main"))
    elif record.best:
        name = record.criterion
        found.append((f"{record.best[name]:.4f}", escaped(name), "main"))
    before = _accuracy_of(baseline)
    if own is not None and before is not None:
        gain = own - before
        kind = "good" if gain > 0 else "bad"
        text = both("points against the student alone", "个百分点（与单独训练的学生相比）")
        found.append((f'<span class="{kind}">{points(gain)}</span>', text, ""))
    for teacher in record.teachers[:1]:
        accuracy = record.accuracy(teacher)
        if accuracy is not None:
            text = both("top-1 of the teacher ", "教师 top-1：") + escaped(teacher.network)
            found.append((percent(accuracy), text, ""))
        agreement = record.agreement(teacher)
        if agreement is not None:
            text = both("of images: student and teacher agree", "的图像上学生与教师一致")
            found.append((percent(agreement), text, ""))
        if student is not None and teacher.parameters and student.parameters:
            text = both("fewer parameters than the teacher", "教师参数量与学生之比")
            found.append((factor(teacher.parameters, student.parameters), text, ""))
    found.append((duration(record.seconds), both("of training and evaluation", "训练与评估用时"), ""))
    boxes = (
        f'<div class="card {kind}"><b>{value}</b><span class="what">{what}</span></div>'
        for value, what, kind in found
    )
    return f'<div class="cards">{"".join(boxes)}</div>'


def _accuracy_of(record: Record | None) -> float | None:
    return None if record is None or record.student is None else record.accuracy(record.student)


def what_on_what(record: Record) -> str:
    """Return which networks were trained on which images, and how."""
    config = record.run.config
    settings = record.run.settings
    rows = []
    for network in record.networks:
        weights = f" — <code>{escaped(network.weights)}</code>" if network.weights else ""
        rows.append((role(record, network), f"{escaped(network.shown)}{weights}"))
    rows.append((both("losses", "损失"), "<br>".join(escaped(text) for text in loss_texts(config))))
    for part, title in (
        ("Train", both("training images", "训练图像")),
        ("UnLabelTrain", both("unlabelled images", "无标签图像")),
        ("Eval", both("evaluation images", "评估图像")),
    ):
        text = _data_text(record, part)
        if text:
            rows.append((title, text))
    classes = None if record.arch is None else record.arch.main.class_count
    rows.append((both("classes", "类别数"), escaped(classes)))
    done = record.run.epochs_done
    asked = record.run.epochs
    epochs = f"{done}" if done == asked or asked is None else both(f"{done} of {asked}", f"{done} / {asked}")
    if not record.run.finished:
        epochs += f' <span class="bad">{both("not finished", "未完成")}</span>'
    rows.append((both("epochs", "轮数"), epochs))
    rows.append((both("optimizer", "优化器"), "<br>".join(escaped(text) for text in optimizer_texts(config))))
    rows.append((both("seed", "随机种子"), escaped(settings.get("seed"))))
    return section(both("What was trained on what", "训练内容"), facts_table(rows), name="what")


def loss_texts(config: Mapping[str, Any]) -> list[str]:
    """Return the losses of training, each with its options, as one line each."""
    left_out = ("model_name_pairs", "model_names", "name")
    return [_call(name, options, left_out=left_out) for name, options in _losses(config)]


def loss_names(config: Mapping[str, Any]) -> list[str]:
    """Return the names of the losses of training in short, such as DKD."""
    found = []
    for name, options in _losses(config):
        inner = options.get("base_loss_name") if isinstance(options, dict) else None
        name = inner if isinstance(inner, str) else name
        found.append(name.removeprefix("Distillation").removesuffix("Loss") or name)
    return found


def _losses(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    losses = config.get("Loss")
    listed = losses.get("Train") if isinstance(losses, dict) else None
    for node in listed if isinstance(listed, list) else []:
        if isinstance(node, dict) and node:
            name = node.get("name") if isinstance(node.get("name"), str) else next(iter(node))
            yield str(name), node if "name" in node else node[name]


def optimizer_texts(config: Mapping[str, Any]) -> list[str]:
    """Return the optimizers with their learning rates, as one line each."""
    given = config.get("Optimizer")
    texts = []
    for node in given if isinstance(given, list) else [given]:
        if isinstance(node, dict):
            rate = node.get("lr")
            text = _call(str(node.get("name")), node, left_out=("name", "lr", "regularizer", "scope"))
            if isinstance(rate, dict):
                text += f", {_call(str(rate.get('name', 'ConstLR')), rate, left_out=('name',))}"
            penalty = node.get("regularizer")
            if isinstance(penalty, dict):
                text += f", {_call(str(penalty.get('name')), penalty, left_out=('name',))}"
            texts.append(text)
    return texts


def _call(name: str, options: Any, left_out: Sequence[str]) -> str:
    if not isinstance(options, dict):
        return name
    shown = [f"{key}={value}" for key, value in options.items() if key not in left_out and value is not None]
    return f"{name}({', '.join(shown)})" if shown else name


def _data_text(record: Record, part: str) -> str:
    data = record.run.config.get("DataLoader")
    node = data.get(part) if isinstance(data, dict) else None
    if not isinstance(node, dict) or not isinstance(node.get("dataset"), dict):
        return ""
    states = record.run.progress or record.run.best
    known = None if states is None else states.lists.get(f"DataLoader.{part}.dataset")
    options = node["dataset"]
    place = (
        options.get("cls_label_path")
        or options.get("image_root")
        or options.get("path")
        or options.get("name")
    )
    sampler = node.get("sampler")
    batch = sampler.get("batch_size") if isinstance(sampler, dict) else None
    count = "" if known is None else f"{known['count']:,}, "
    size = f", {both(f'batch {batch}', f'批大小 {batch}')}" if batch else ""
    return f"{count}<code>{escaped(place)}</code>{size}"


# ---------------------------------------------------------------- accuracy


def accuracies(record: Record, baseline: Record | None) -> str:
    """Return the accuracy of each network, its gain over the baseline, its agreement with teachers."""
    teachers = record.references
    before = _accuracy_of(baseline)
    columns = [
        Column(both("network", "网络")),
        Column("top-1", number=True),
        *([Column(both("gain, points", "提升（百分点）"), number=True)] if before is not None else []),
        *(Column(both("agrees with ", "一致率：") + escaped(t.title), number=True) for t in teachers),
        Column(both("epoch", "轮次"), number=True),
    ]
    rows: list[list[Cell]] = []
    for network in record.networks:
        is_student = network.role == "student"
        own = record.accuracy(network)
        cells = [_named(network, role(record, network)), Cell("" if own is None else percent(own))]
        if before is not None:
            cells.append(Cell(points(own - before) if is_student and own is not None else ""))
        agreements = [record.agreement(teacher) if is_student else None for teacher in teachers]
        cells += [Cell("" if value is None else percent(value)) for value in agreements]
        rows.append([*cells, number_cell(record.run.best_epoch if is_student else None, "{:.0f}")])
    if baseline is not None and baseline.student is not None:
        who = f"{_ROLES['baseline']} <code>{escaped(baseline.folder)}</code>"
        cells = [_named(baseline.student, who), Cell("" if before is None else percent(before))]
        cells += [Cell("")] * (len(columns) - 3)
        rows.insert(len(rows) - 1, [*cells, number_cell(baseline.run.best_epoch, "{:.0f}")])
    content = table(columns, rows, main=len(rows) - 1)
    content += _other_values(record)
    return section(both("Accuracy", "准确率"), content, name="accuracy")


def _named(network: NetworkFacts, role_text: str) -> Cell:
    """Return the cell of a network, with what it is in its run below its name."""
    return Cell(f'{escaped(network.shown)}<div class="note">{role_text}</div>')


def _other_values(record: Record) -> str:
    if not record.best:
        return note(both("This run was not evaluated.", "本次训练没有评估。"))
    values = ", ".join(f"{escaped(name)} {value:.4f}" for name, value in record.best.items())
    epoch = record.run.best_epoch
    by = escaped(record.criterion)
    of, of_zh = (" of the averaged weights", "平均权重的") if record.run.averages_are_better else ("", "")
    return note(
        both(
            f"Best evaluation{of}, chosen by {by}, after epoch {epoch}: {values}",
            f"{of_zh}最佳评估（依据 {by}，第 {epoch} 轮）：{values}",
        )
    )


def warnings(record: Record) -> str:
    """Return the warnings of the run, and what of its folder could not be read."""
    listed = []
    for text, count in record.log.warnings.items():
        times = f' <span class="note">× {count}</span>' if count > 1 else ""
        listed.append(f"<li>{escaped(text)}{times}</li>")
    listed += [f"<li>{escaped(text)}</li>" for text in record.problems]
    content = f'<ul class="warnings">{"".join(listed[:100])}</ul>'
    if not listed:
        content = note(both("There were none.", "没有。"))
    return section(both("Warnings", "警告"), content, long=True, name="warnings")
