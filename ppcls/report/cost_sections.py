"""The sections of a run's page about size, latency, time, command and environment."""

from __future__ import annotations

import shlex
from typing import Any

from ppcls.errors import mask_credentials
from ppcls.report.html import Cell, Column, both, escaped, facts_table, note, section, table, text_cell
from ppcls.report.record import Record
from ppcls.report.words import amount, duration, factor, file_size


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
        if network.role == "ensemble":  # its size is that of its networks
            continue
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
    facts = record.facts
    rows = []
    if record.log.began:
        rows.append((both("began", "开始时间"), escaped(record.log.began)))
    seconds = record.seconds
    rows.append((both("training and evaluation", "训练与评估"), duration(seconds)))
    training = record.training_seconds
    if training is not None:
        rows.append((both("steps of training alone", "仅训练步骤"), duration(training)))
    steps = max((row["step"] for row in record.run.rows), default=0)
    processes = facts.get("processes")
    processes = processes if isinstance(processes, int) else 1
    images = 0 if record.run.progress is None else record.run.progress.seen_images
    if not images:  # a run of an earlier version: as if all batches were full
        images = steps * (_number(record, "DataLoader", "Train", "sampler", "batch_size") or 0) * processes
        images *= _number(record, "Global", "update_freq") or 1
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


def _number(record: Record, *keys: str) -> int | None:
    node: Any = record.run.config
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, int) else None


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
        f"<details><summary>{both('the whole recipe', '完整配方')}</summary>"
        f"<pre>{escaped(config_text)}</pre></details>"
    )
    return section(both("Command and environment", "命令与环境"), content, long=True, name="environment")
