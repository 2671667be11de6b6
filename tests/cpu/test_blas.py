"""Which way Paddle's products go on which processor."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import numpy as np
import pytest

from ppcls.cpu import blas
from ppcls.cpu.blas import choose_blas, fast_blas
from ppcls.cpu.switches import check_switches
from ppcls.errors import ConfigError

AVX2 = "fpu sse4_2 avx avx2 fma"
AVX512 = f"{AVX2} avx512f avx512dq avx512cd avx512bw avx512vl"


@pytest.mark.parametrize(
    ("vendor", "flags", "way"),
    [
        ("AuthenticAMD", AVX512, "7"),
        ("AuthenticAMD", AVX2, "5"),
        ("AuthenticAMD", f"{AVX2} avx512f", "5"),
        ("AuthenticAMD", AVX512.replace("avx512vl", ""), "5"),
        ("AuthenticAMD", "fpu sse4_2 avx avx2", None),
        ("AuthenticAMD", "fpu sse4_2 avx", None),
        ("GenuineIntel", AVX512, None),
        ("HygonGenuine", AVX2, None),
    ],
)
def test_the_best_way_that_the_processor_can_go(vendor, flags, way):
    assert choose_blas({"vendor_id": vendor, "flags": flags}) == way


def test_an_unknown_processor_is_left_alone():
    assert choose_blas({}) is None


@pytest.fixture
def amd(monkeypatch):
    """A machine with an AMD processor and a Paddle that brings the old library."""
    monkeypatch.setattr(blas, "read_processor", lambda: {"vendor_id": "AuthenticAMD", "flags": AVX512})
    monkeypatch.setattr(blas, "_has_old_library", lambda: True)


@pytest.mark.usefixtures("amd")
def test_it_is_set_where_nobody_chose():
    environment: dict[str, str] = {}
    assert fast_blas(environment) == "7"
    assert environment == {"MKL_DEBUG_CPU_TYPE": "7"}


@pytest.mark.usefixtures("amd")
@pytest.mark.parametrize("chosen", [{"MKL_DEBUG_CPU_TYPE": "4"}, {"PPCLS_BLAS": "off"}], ids=str)
def test_a_choice_of_the_user_stays(chosen):
    environment = dict(chosen)
    assert fast_blas(environment) is None
    assert environment == chosen


def test_another_paddle_is_left_alone(amd, monkeypatch):
    monkeypatch.setattr(blas, "_has_old_library", lambda: False)
    assert fast_blas({}) is None


def test_the_library_is_looked_for_in_the_paddle_that_would_be_imported(tmp_path, monkeypatch):
    found = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    assert not blas._has_old_library()
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs/libmklml_intel.so").touch()
    assert blas._has_old_library()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not blas._has_old_library()


@pytest.mark.parametrize("name", ["PPCLS_BLAS", "PPCLS_MALLOC"])
def test_a_switch_with_a_value_that_means_nothing_is_refused(name):
    check_switches({name: "off"})
    check_switches({name: "auto"})
    check_switches({name: ""})
    with pytest.raises(ConfigError, match=f"{name}=false: expected auto or off"):
        check_switches({name: "false"})


SCRIPT = """
import os, sys
from ppcls.cpu import blas
blas.read_processor = lambda: {"vendor_id": "AuthenticAMD", "flags": sys.argv[1]}
os.environ.pop("MKL_DEBUG_CPU_TYPE", None)
blas.fast_blas()
import numpy as np, paddle
from paddle.nn import functional as F
paddle.seed(1)
network = paddle.vision.models.LeNet()
images = paddle.randn([16, 1, 28, 28])
F.cross_entropy(network(images), paddle.arange(16) % 10).backward()
np.save(sys.argv[2], np.concatenate([p.grad.numpy().ravel() for p in network.parameters()]))
print(os.environ.get("MKL_DEBUG_CPU_TYPE"))
"""


def test_gradients_agree_both_ways(tmp_path):
    """The variable has no effect on processors of Intel, where both runs are equal."""
    from ppcls.cpu.processor import read_processor

    own = read_processor().get("flags", "")
    results, ways = [], []
    for number, switch in enumerate(("auto", "off")):
        file = tmp_path / f"{number}.npy"
        environment = {**os.environ, "PPCLS_BLAS": switch}
        environment.pop("MKL_DEBUG_CPU_TYPE", None)
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT, own, str(file)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        ways.append(done.stdout.split()[-1])
        results.append(np.load(file))
    if {"avx2", "fma"} <= set(own.split()) and blas._has_old_library():
        assert ways[0] in ("5", "7")
    assert ways[1] == "None"
    difference = np.linalg.norm(results[0] - results[1])
    assert difference <= 1e-5 * np.linalg.norm(results[1])
    assert np.linalg.norm(results[1]) > 0
