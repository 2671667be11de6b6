"""The section of a run's page with its curves."""

from __future__ import annotations

from collections.abc import Iterator

from ppcls.report.charts import COLORS, GREY, Line, chart
from ppcls.report.html import both, escaped, note, section
from ppcls.report.record import Record

STUDENT, TEACHER, OTHER = COLORS[0], COLORS[1], COLORS[2]


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
    yield _accuracy(record, baseline, training)
    losses = [
        Line(trained, *record.series(training, "loss"), color=OTHER),
        Line(evaluated, *record.series("eval", "loss"), color=STUDENT),
    ]
    yield chart(both("loss", "损失"), losses, clipped=True)
    parts = [name for name in record.names(training) if "loss" in name.lower() and name != "loss"]
    if len(parts) > 1:
        lines = [
            Line(escaped(name), *record.series(training, name), color=COLORS[place % len(COLORS)])
            for place, name in enumerate(parts)
        ]
        yield chart(both("parts of the training loss", "训练损失的各项"), lines, clipped=True)
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
        yield chart(title, lines, form=form, clipped=form != "%")
    rates = [name for name in record.names("train") if name == "lr" or name.startswith("lr_")]
    lines = [
        Line(escaped(name), *record.series("train", name), color=COLORS[place % len(COLORS)])
        for place, name in enumerate(rates)
    ]
    yield chart(both("learning rate", "学习率"), lines, form=".3g")
    norm = [Line("grad_norm", *record.series("train", "grad_norm"), color=COLORS[4])]
    yield chart(both("norm of the gradients", "梯度范数"), norm, form=".3g")


def _accuracy(record: Record, baseline: Record | None, training: str) -> str:
    if "top1" not in record.names("eval"):
        return ""
    trained, evaluated = both("training", "训练"), both("evaluation", "评估")
    lines = [
        Line(evaluated, *record.series("eval", "top1"), color=STUDENT),
        Line(trained, *record.series(training, "top1"), color=OTHER),
    ]
    if record.series("eval", "top1_ema")[0]:
        lines.append(
            Line(both("averaged weights", "平均权重"), *record.series("eval", "top1_ema"), color=COLORS[3])
        )
    if baseline is not None:
        lines.append(Line(both("student alone", "单独训练"), *baseline.series("eval", "top1"), color=GREY))
    for teacher in record.references:
        accuracy = record.accuracy(teacher)
        if accuracy is not None:
            lines.append(Line(escaped(teacher.title), level=accuracy, color=TEACHER, dashed=True))
    return chart(both("top-1 accuracy", "top-1 准确率"), lines, form="%")
