"""Train parameters of which some have a gradient only at some steps, and not in all processes."""

import sys
from pathlib import Path

import numpy as np
import paddle

from ppcls import distributed

STEPS = 6
SIZES = {
    "always": [3, 2],
    "large": [300, 250],
    "alternating": [4],
    "lonely": [5],
    "never": [2],
    "late": [250, 300],
}


def used(name, step, rank):
    """Tell whether a parameter has a gradient at a step of a process."""
    return {
        "alternating": step % 2 == rank,
        "lonely": rank == 1,
        "never": False,
        "late": step > 2 and (step + rank) % 3 > 0,
        "large": step != 4,
    }.get(name, True)


def gradient(name, step, rank):
    """Return the gradient that a parameter has then; None without one."""
    number = (1 + step) * (1 + 2 * rank) + len(name)
    return (
        number * np.linspace(-1, 1, int(np.prod(SIZES[name])), dtype="float32")
        if used(name, step, rank)
        else None
    )


def main(folder):
    paddle.set_device("cpu")
    distributed.start()
    rank = distributed.rank()
    parameters = {name: paddle.create_parameter(shape, "float32") for name, shape in SIZES.items()}
    for parameter in parameters.values():
        parameter.set_value(paddle.ones(parameter.shape))
    buffer = paddle.zeros([3])
    without = []
    for step in range(STEPS):
        for name, parameter in parameters.items():
            wanted = gradient(name, step, rank)
            if wanted is not None:
                (parameter.flatten() * paddle.to_tensor(wanted)).sum().backward()
        buffer.set_value(buffer + step + rank)
        stop = distributed.average_gradients(list(parameters.values()), [buffer], step == 4 and rank == 1)
        assert stop is (step == 4)
        without.append([name for name, parameter in parameters.items() if parameter.grad is None])
        for parameter in parameters.values():
            if parameter.grad is not None:
                with paddle.no_grad():
                    parameter.set_value(parameter - 0.1 * parameter.grad)
            parameter.clear_gradient(False)
    values = {name: parameter.numpy() for name, parameter in parameters.items()}
    np.savez(
        folder / f"{rank}.npz",
        **values,
        buffer=buffer.numpy(),
        without=np.array([" ".join(w) for w in without]),
    )
    distributed.wait_for_all()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
