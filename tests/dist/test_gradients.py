"""Which parameters have a gradient may change at any step, and differ between processes."""

import changing_gradients as work
import numpy as np
import pytest
from launching import together

pytestmark = pytest.mark.dist


def test_changing_gradients_neither_hang_nor_drift(tmp_path):
    done = together(tmp_path, [work.__file__, str(tmp_path)])
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in (0, 1))
    for name in first:
        assert first[name].tobytes() == second[name].tobytes(), name
    for name, shape in work.SIZES.items():
        expected = np.ones(int(np.prod(shape)))
        for step in range(work.STEPS):
            given = [work.gradient(name, step, rank) for rank in (0, 1)]
            absent = name in str(first["without"][step]).split()
            assert absent is all(one is None for one in given), (name, step)
            expected -= 0.1 * sum(one for one in given if one is not None) / 2 if not absent else 0
        np.testing.assert_allclose(first[name].reshape(-1), expected, rtol=1e-5, atol=1e-4, err_msg=name)
    average = 0.0
    for step in range(work.STEPS):
        average += step + 0.5
    np.testing.assert_allclose(first["buffer"], average)
