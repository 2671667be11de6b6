"""What of a file fits a network: counted, said, and refused where the network would stay untrained."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls import create_model
from ppcls.errors import WeightsError
from ppcls.weights import load_into, load_pretrained, untrained, write_params
from ppcls.weights.loadable import Loadable


class Tiny(nn.Layer):
    def __init__(self, classes: int = 5, width: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2D(channels, width, 3, bias_attr=False)
        self.norm = nn.BatchNorm2D(width)
        self.fc = nn.Linear(width, classes)


class Run(nn.Layer, Loadable):
    """Like a distillation run: named networks, some of them frozen."""

    def __init__(self, frozen: tuple[str, ...] = (), **networks: nn.Layer) -> None:
        super().__init__()
        self.frozen_prefixes = lambda: tuple(f"{name}." for name in frozen)
        for name, net in networks.items():
            self.add_sublayer(name, net)

    def frozen_prefixes(self) -> tuple[str, ...]:
        return tuple(f"{name}." for name in self.frozen)


def arrays(net: nn.Layer, prefix: str = "") -> dict[str, np.ndarray]:
    return {prefix + name: value.numpy().copy() for name, value in net.state_dict().items()}


def same(net: nn.Layer, want: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(value, want[name]) for name, value in arrays(net).items())


def test_the_line_counts_everything(caplog: pytest.LogCaptureFixture) -> None:
    donor, net = Tiny(), Tiny()
    given = arrays(donor) | {"extra.weight": np.zeros(3), "norm.num_batches_tracked": np.array(7)}
    with caplog.at_level(logging.INFO, "ppcls.weights"):
        report = load_into(net, given, "x.pdparams")
    assert same(net, arrays(donor))
    line = "7 of 7 tensors loaded from x.pdparams (0 missing, 1 unexpected, 0 of another shape)"
    assert str(report) == line
    assert [r.getMessage() for r in caplog.records] == [line]
    assert report.unexpected == ("extra.weight",)


def test_nothing_matches() -> None:
    net = Tiny()
    before = arrays(net)
    with pytest.raises(WeightsError, match=r"(?s)none of its 2 tensors.*other\.weight.*conv\.weight"):
        load_into(net, {"other.weight": np.zeros(2), "other.bias": np.zeros(2)}, "x")
    with pytest.raises(WeightsError, match="none of its 0 tensors"):
        load_into(net, {}, "x")
    assert same(net, before)


def test_missing_beyond_the_head_changes_nothing() -> None:
    net, given = Tiny(), arrays(Tiny())
    before = arrays(net)
    del given["norm._mean"]
    with pytest.raises(WeightsError, match=r"6 of 7 .*1 missing(?s:.*)missing in the file: norm\._mean"):
        load_into(net, given, "x")
    assert same(net, before)


def test_another_class_count_skips_the_head_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    donor, net = Tiny(classes=10), Tiny(classes=3)
    head = arrays(net.fc)
    with caplog.at_level(logging.INFO, "ppcls.weights"):
        report = load_into(net, arrays(donor), "x")
    assert report.wrong_shape == ("fc.weight", "fc.bias")
    assert same(net.fc, head)
    assert same(net.conv, arrays(donor.conv))
    text = caplog.records[-1].getMessage()
    assert "classifier left untrained: fc.weight, fc.bias" in text
    assert "file: 10 classes, network: 3" in text
    with pytest.raises(WeightsError, match="Only the classifier differs: set class_num"):
        load_into(net, arrays(donor), "x", allow_missing_head=False)


def test_a_classifier_that_got_its_values_elsewhere_counts_as_trained() -> None:
    net = create_model("resnet8", class_num=4)
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    load_into(net, {name: value for name, value in state.items() if not name.startswith("fc.")}, "file")
    assert untrained(net.state_dict()) == ["fc.weight", "fc.bias"]
    net.set_state_dict({name: value + 1 for name, value in state.items()})
    assert untrained(net.state_dict()) == []


def test_a_file_without_a_head() -> None:
    donor, net = Tiny(), Tiny()
    given = {n: v for n, v in arrays(donor).items() if not n.startswith("fc")}
    assert load_into(net, given, "x").missing == ("fc.weight", "fc.bias")
    assert same(net.conv, arrays(donor.conv))
    with pytest.raises(WeightsError, match="untrained"):
        load_into(net, given, "x", allow_missing_head=False)


@pytest.mark.parametrize("other", [Tiny(width=8), Tiny(channels=1)])
def test_another_shape_beyond_the_head(other: nn.Layer) -> None:
    with pytest.raises(WeightsError, match=r"of another shape: .*conv\.weight \[\d, \d, 3, 3\] in the file"):
        load_into(Tiny(), arrays(other), "x")


def test_values_take_the_types_of_the_network() -> None:
    donor, net = Tiny(), Tiny()
    load_into(net, {n: v.astype(np.float16) for n, v in arrays(donor).items()}, "x")
    want = arrays(donor)["conv.weight"].astype(np.float16).astype(np.float32)
    assert net.conv.weight.dtype == paddle.float32
    np.testing.assert_array_equal(net.conv.weight.numpy(), want)
    half = Tiny().to(dtype="bfloat16")  # `bfloat16()` keeps float32 where the processor lacks it
    load_into(half, arrays(donor), "x")
    assert half.conv.weight.dtype == paddle.bfloat16
    np.testing.assert_allclose(
        half.conv.weight.astype("float32").numpy(), arrays(donor)["conv.weight"], rtol=8e-3
    )


def test_a_whole_run_loads_into_its_student(caplog: pytest.LogCaptureFixture) -> None:
    student, teacher, net = Tiny(), Tiny(), Tiny()
    given = arrays(teacher, "Teacher.") | arrays(student, "Student.")
    with caplog.at_level(logging.INFO, "ppcls.weights"):
        report = load_into(net, given, "x")
    assert same(net, arrays(student))
    assert "taken from Student in the file, 7 tensors of other networks" in caplog.records[-1].getMessage()
    assert len(report.matched) == 7
    load_into(net, given, "x", network="Teacher")
    assert same(net, arrays(teacher))


def test_a_nested_student() -> None:
    student, net = Tiny(), Tiny()
    load_into(net, arrays(Tiny(width=8), "Teacher.Big.") | arrays(student, "Student.Small."), "x")
    assert same(net, arrays(student))


def test_networks_that_fit_alike_must_be_chosen() -> None:
    a, b, net = Tiny(), Tiny(), Tiny()
    given = arrays(a, "A.") | arrays(b, "B.")
    with pytest.raises(WeightsError, match=r"A, B fit alike; .*infer_model_name"):
        load_into(net, given, "x")
    load_into(net, given, "x", network="B")
    assert same(net, arrays(b))


def test_only_the_network_of_the_right_shape_is_taken() -> None:
    small, net = Tiny(), Tiny()
    load_into(net, arrays(Tiny(width=8), "Big.") | arrays(small, "Little."), "x")
    assert same(net, arrays(small))


def test_a_student_file_loads_into_a_whole_run(caplog: pytest.LogCaptureFixture) -> None:
    student, teacher = Tiny(), Tiny()
    run = Run(Teacher=teacher, Student=Tiny())
    before = arrays(teacher)
    with caplog.at_level(logging.INFO, "ppcls.weights"):
        report = load_into(run, arrays(student), "x")
    assert same(run.Student, arrays(student))
    assert same(teacher, before)
    assert "put into Student alone" in caplog.records[-1].getMessage()
    assert report.matched[0] == "Student.conv.weight"


def test_a_checkpoint_without_its_frozen_teacher() -> None:
    student = Tiny()
    run = Run(frozen=("Teacher",), Teacher=Tiny(), Student=Tiny())
    before = arrays(run.Teacher)
    report = load_into(run, arrays(student, "Student."), "x", allow_missing_head=False)
    assert not report.missing
    assert same(run.Student, arrays(student))
    assert same(run.Teacher, before)
    with pytest.raises(WeightsError, match=r"missing in the file: Teacher\.conv"):
        load_into(Run(Teacher=Tiny(), Student=Tiny()), arrays(student, "Student."), "x")


def test_pretrained_by_path(tmp_path: Path) -> None:
    donor, net = Tiny(), Tiny()
    write_params(tmp_path / "best_model.pdparams", arrays(donor, "Student."))
    assert load_pretrained(net, "Tiny", False) is None
    assert load_pretrained(net, "Tiny", None) is None
    load_pretrained(net, "Tiny", str(tmp_path / "best_model"))
    assert same(net, arrays(donor))
    with pytest.raises(WeightsError, match=r"Arch\.models\.0\.Teacher\.pretrained: no weights file"):
        load_pretrained(net, "Tiny", str(tmp_path / "none"), where="Arch.models.0.Teacher")
    with pytest.raises(WeightsError, match=r"no official weights for ResNet18x;.*Did you mean: ResNet18"):
        load_pretrained(net, "ResNet18x", True)
