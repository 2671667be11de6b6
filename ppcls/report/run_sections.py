"""The sections of a run's page that come from its recipe, its values and its log."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ppcls.errors import mask_credentials
from ppcls.report.charts import COLORS, GREY, Line, chart
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
    text_cell,
)
from ppcls.report.record import NetworkFacts, Record
from ppcls.report.words import amount, duration, factor, file_size, percent, points

STUDENT, TEACHER, OTHER = COLORS[0], COLORS[1], COLORS[2]
_ROLES = {
    "teacher": both("teacher", "教师"),
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
    found.append((duration(seconds_of(record)), both("of training and evaluation", "训练与评估用时"), ""))
    boxes = (
        f'<div class="card {kind}"><b>{value}</b><span class="what">{what}</span></div>'
        for value, what, kind in found
    )
    return f'<div class="cards">{"".join(boxes)}</div>'


def seconds_of(record: Record) -> float | None:
    """Return how long a run took in all its parts; None if that is unknown."""
    return record.log.seconds or record.training_seconds


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
    losses = config.get("Loss")
    listed = losses.get("Train") if isinstance(losses, dict) else None
    texts = []
    for node in listed if isinstance(listed, list) else []:
        if isinstance(node, dict) and node:
            name = node.get("name") if isinstance(node.get("name"), str) else next(iter(node))
            options = node if "name" in node else node[name]
            texts.append(_call(str(name), options, left_out=("model_name_pairs", "model_names", "name")))
    return texts


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
    teachers = record.teachers
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
    return note(
        both(
            f"Best evaluation, chosen by {by}, after epoch {epoch}: {values}",
            f"最佳评估（依据 {by}，第 {epoch} 轮）：{values}",
        )
    )


# ---------------------------------------------------------------- curves


def curves(record: Record, baseline: Record | None) -> str:
    """Return the curves of all recorded values."""
    pictures = [picture for picture in _pictures(record, baseline) if picture]
    if not pictures:
        return ""
    text = both("Against epochs; touch a picture to read values.", "横轴为轮数；将指针移到图上可读数值。")
    content = f'<div class="charts">{"".join(pictures)}</div>{note(text)}'
    return section(both("Curves", "曲线"), content, name="curves")


def _pictures(record: Record, baseline: Record | None) -> Iterator[str]:
    training = "epoch" if record.run.rows_of("epoch") else "train"
    trained, evaluated = both("training", "训练"), both("evaluation", "评估")
    if "top1" in record.names("eval"):
        lines = [
            Line(evaluated, *record.series("eval", "top1"), color=STUDENT),
            Line(trained, *record.series(training, "top1"), color=OTHER),
        ]
        if record.series("eval", "top1_ema")[0]:
            lines.append(
                Line(
                    both("averaged weights", "平均权重"), *record.series("eval", "top1_ema"), color=COLORS[3]
                )
            )
        if baseline is not None:
            lines.append(
                Line(both("student alone", "单独训练"), *baseline.series("eval", "top1"), color=GREY)
            )
        for teacher in record.teachers:
            accuracy = record.accuracy(teacher)
            if accuracy is not None:
                lines.append(Line(escaped(teacher.title), level=accuracy, color=TEACHER, dashed=True))
        yield chart(both("top-1 accuracy", "top-1 准确率"), lines, form="%")
    losses = [
        Line(trained, *record.series(training, "loss"), color=OTHER),
        Line(evaluated, *record.series("eval", "loss"), color=STUDENT),
    ]
    yield chart(both("loss", "损失"), losses)
    parts = [name for name in record.names(training) if "loss" in name.lower() and name != "loss"]
    if len(parts) > 1:
        lines = [
            Line(escaped(name), *record.series(training, name), color=COLORS[place % len(COLORS)])
            for place, name in enumerate(parts)
        ]
        yield chart(both("parts of the training loss", "训练损失的各项"), lines)
    for prefix, title, form in (
        ("agreement_", both("agreement with the teacher", "与教师的一致率"), "%"),
        ("kl_", both("KL divergence from the teacher, nats", "与教师的 KL 散度（nat）"), ".4f"),
    ):
        names = [n for n in record.names("eval") if n.startswith(prefix) and not n.endswith("_ema")]
        lines = [
            Line(
                escaped(name.removeprefix(prefix)),
                *record.series("eval", name),
                color=COLORS[place % len(COLORS)],
            )
            for place, name in enumerate(names)
        ]
        yield chart(title, lines, form=form)
    rates = [name for name in record.names("train") if name == "lr" or name.startswith("lr_")]
    lines = [
        Line(escaped(name), *record.series("train", name), color=COLORS[place % len(COLORS)])
        for place, name in enumerate(rates)
    ]
    yield chart(both("learning rate", "学习率"), lines, form=".3g")
    norm = [Line("grad_norm", *record.series("train", "grad_norm"), color=COLORS[4])]
    yield chart(both("norm of the gradients", "梯度范数"), norm, form=".3g")


# ---------------------------------------------------------------- cost


def sizes(record: Record) -> str:
    """Return size, cost and latency of each network."""
    if not any(n.parameters or n.latency or n.bytes for n in record.networks):
        return ""
    teacher = record.teachers[0] if record.teachers else None
    columns = [
        Column(both("network", "网络")),
        Column(both("parameters", "参数量"), number=True),
        Column(both("multiply-adds", "乘加次数"), number=True),
        Column(both("file", "文件"), number=True),
        Column(both("one image", "单张图像"), number=True),
    ]
    rows = []
    for network in record.networks:
        cells = [text_cell(network.shown)]
        for value, text, large in (
            (network.parameters, amount(network.parameters), teacher and teacher.parameters),
            (network.multiply_adds, amount(network.multiply_adds), teacher and teacher.multiply_adds),
            (network.bytes, file_size(network.bytes), teacher and teacher.bytes),
            (
                network.latency,
                "–" if network.latency is None else f"{network.latency:.3g} ms",
                teacher and teacher.latency,
            ),
        ):
            ratio = factor(large, value) if network.role == "student" and large else ""
            share = (
                f' <span class="note">(1/{ratio.removesuffix(" ×")})</span>' if ratio not in ("", "–") else ""
            )
            cells.append(Cell(text + share, value))
        rows.append(cells)
    device = escaped(record.facts.get("latency_of") or "")
    remark = both(
        "Parameters without BatchNorm statistics; multiply-adds of one image in convolutions and matrix "
        f"products; latency of the trained network itself, one image, {device}. An exported network is "
        "faster: <code>ppcls predict --benchmark</code> measures it.",
        "参数量不含 BatchNorm 统计量；乘加次数为单张图像在卷积与矩阵乘法中的次数；"
        f"延迟为训练后网络本身处理一张图像的时间（{device}）。"
        "导出的网络更快，可用 <code>ppcls predict --benchmark</code> 测量。",
    )
    return section(both("Size and latency", "大小与延迟"), table(columns, rows) + note(remark), name="size")


def time_and_cost(record: Record) -> str:
    """Return how long the run took and how much it computed."""
    settings = record.run.settings
    facts = record.facts
    rows = []
    if record.log.began:
        rows.append((both("began", "开始时间"), escaped(record.log.began)))
    seconds = seconds_of(record)
    rows.append((both("training and evaluation", "训练与评估"), duration(seconds)))
    training = record.training_seconds
    if training is not None:
        rows.append((both("steps of training alone", "仅训练步骤"), duration(training)))
    steps = max((row["step"] for row in record.run.rows), default=0)
    batch = _batch_size(record)
    processes = facts.get("processes")
    processes = processes if isinstance(processes, int) else 1
    frequency = settings.get("update_freq")
    images = steps * batch * processes * (frequency if isinstance(frequency, int) else 1) if batch else None
    rows.append((both("optimizer steps", "优化步数"), f"{steps:,}"))
    if images:
        rows.append((both("images seen", "处理的图像"), f"{images:,}"))
        if training:
            rows.append(
                (
                    both("speed of training", "训练速度"),
                    both(f"{images / training:.0f} images/s", f"每秒 {images / training:.0f} 张"),
                )
            )
    device = record.run.environment.get("device") if record.run.environment else None
    if seconds is not None:
        hours = seconds / 3600 * processes
        rows.append(
            (
                both("processes", "进程数"),
                both(
                    f"{processes} on {escaped(device)}, {hours:.2g} process hours",
                    f"{processes}（{escaped(device)}），共 {hours:.2g} 进程小时",
                ),
            )
        )
    return section(both("Time and cost", "时间与成本"), facts_table(rows), name="time")


def _batch_size(record: Record) -> int | None:
    node: Any = record.run.config
    for key in ("DataLoader", "Train", "sampler", "batch_size"):
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, int) else None


# ---------------------------------------------------------------- how to repeat it


def command_and_environment(record: Record, config_text: str) -> str:
    """Return the command, the versions and the whole recipe."""
    environment = dict(record.run.environment or {})
    given = environment.pop("command", None)
    words = [str(word) for word in given] if isinstance(given, list) else []
    if words:
        words[0] = words[0].replace("\\", "/").rpartition("/")[2] or words[0]
    processes = record.facts.get("processes")
    if words and isinstance(processes, int) and processes > 1 and "--nproc" not in words:
        words += ["--nproc", str(processes)]  # each process got the command without it
    line = mask_credentials(" ".join(map(shlex.quote, words)))
    rows = [(escaped(name), escaped(value)) for name, value in environment.items() if value is not None]
    content = ""
    if line:
        content += (
            f'<pre class="wrap" id="command">{escaped(line)}</pre>'
            f'<button type="button" data-copy="command">{both("copy", "复制")}</button>'
        )
    content += facts_table(rows)
    content += (
        f"<details><summary>{both('the whole recipe', '完整配置')}</summary>"
        f"<pre>{escaped(config_text)}</pre></details>"
    )
    return section(both("Command and environment", "命令与环境"), content, long=True, name="environment")


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
