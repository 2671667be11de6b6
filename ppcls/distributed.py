"""Training in several processes. Only this module asks which process this is.

Gradients are averaged after the backward pass in one exchange, instead of wrapping networks in
``paddle.DataParallel``: frozen networks and losses with parameters need no special case, a parameter without
gradient in all processes stays unchanged as in one process (with DataParallel's default, ranks silently drift
apart), and accumulation needs no exchange. All processes call every collective at the same step.

A process that has lost another one does not end at once: the launcher shows the error of the first process
that ends, which has to be the one with the cause.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ppcls.errors import ConfigError, TrainingError
from ppcls.job import BACKEND, end_with_launcher, limited_patience, patience, read_job
from ppcls.job import rank as rank  # others ask for it here
from ppcls.job import world_size as world_size
from ppcls.rendezvous import meet

# Seconds in which the launcher, which checks every second, finds the process that failed and ends the others.
GRACE = 10.0
LOST = "lost the connection to another one"  # in the message of a process that is not the cause of a failure
STARTED = "PPCLS_STARTED"  # names the file that tells `ppcls train --nproc` that the start has succeeded
_LOST = (OSError, RuntimeError)  # gloo raises the first, nccl either
_STORE_LOST = (*_LOST, ValueError)  # errors of Paddle's TCP store when the process that serves it has ended
_counter = itertools.count()


def is_main() -> bool:
    """Tell whether this process writes files and prints: rank 0."""
    return rank() == 0


def start(note: Any = None, check: Callable[[list[Any]], None] = lambda notes: None) -> None:
    """Connect to the other processes that ``paddle.distributed.launch`` started. Set the device before.

    Args:
        note: information about this process that JSON can represent.
        check: called with the notes of all processes, in order of rank, before they are connected.

    Raises:
        ConfigError: if the environment variables that describe the processes make no sense.
        TrainingError: if a process does not start, or the address is used by another program.
    """
    note = json.loads(json.dumps(note, default=str))
    job = read_job()
    if job.size == 1:
        return
    end_with_launcher()
    import paddle

    if paddle.distributed.is_initialized():
        wait_for_all()
        check(gather(note))
        return
    if paddle.device.get_device() == "cpu" and os.environ.setdefault(BACKEND, "gloo") != "gloo":
        raise ConfigError(f"{BACKEND}={os.environ[BACKEND]}: expected gloo, the only one there is on the CPU")
    check(meet(job, note, patience()))
    try:
        with limited_patience():
            paddle.distributed.init_parallel_env()
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"{job.name(job.rank)} of {job.size} cannot be connected at {job.master} ({job.source}): "
            f"{str(error).strip()}"
        ) from error


def announce_start() -> None:
    """Tell `ppcls train --nproc`, if it started this process, that logs may go into the run's folder."""
    file = os.environ.get(STARTED)
    if file and is_main():
        with contextlib.suppress(OSError):
            Path(file).touch()


def announce_end(code: int) -> None:
    """Tell `ppcls train --nproc`, if it started this process, which exit code it ends with.

    Paddle's launcher returns that of the first process, which it may have ended itself.
    """
    file = os.environ.get(STARTED)
    if file:
        with contextlib.suppress(OSError):
            Path(file).with_name(f"code.{rank()}").write_text(str(code))


def wait_for_main() -> None:
    """Wait for rank 0, however long its work takes (gloo's collectives give up after 30 s)."""
    _meet([0])


def wait_for_all() -> None:
    """Wait for all processes, however long that takes."""
    _meet(range(world_size()))


def _meet(ranks: Iterable[int]) -> None:
    """Wait for the processes `ranks`; unlike a collective, the store has no time limit."""
    if world_size() == 1:
        return
    from ppcls._paddle import shared_store  # Paddle is slow to import, and commands read this module first

    store = shared_store()
    place = next(_counter)
    if rank() in ranks:
        _exchange(store.set, f"ppcls/{place}/{rank()}", "1", lost=_STORE_LOST)
    for other in ranks:
        _exchange(store.wait, f"ppcls/{place}/{other}", lost=_STORE_LOST)


def _exchange(call: Callable[..., Any], *args: Any, lost: tuple[type[Exception], ...] = _LOST) -> None:
    """Call a function that needs the other processes.

    Args:
        call: the function.
        args: its arguments.
        lost: errors that it raises when another process has ended.

    Raises:
        TrainingError: if another process has ended, after the time that the launcher needs to find it.
    """
    try:
        call(*args)
    except lost as error:
        time.sleep(GRACE)
        raise TrainingError(
            f"process {rank()} of {world_size()} {LOST} ({str(error).strip()}). "
            "Either that one ended, and its output says why, or it was 30 s behind: gloo does not wait longer"
        ) from error


def gather(value: Any) -> list[Any]:
    """Return the small picklable `value` of every process, in order of rank."""
    if world_size() == 1:
        return [value]
    import paddle

    found: list[Any] = []
    _exchange(paddle.distributed.all_gather_object, found, value)
    return found


def copy_from_main(tensors: Iterable[Any]) -> None:
    """Give every process rank 0's values of `tensors` (the same tensors, in the same order, everywhere)."""
    if world_size() == 1:
        return
    import paddle

    wait_for_all()  # one process may still be downloading weights
    for tensor in tensors:
        _exchange(paddle.distributed.broadcast, tensor, 0)


def gather_rows(tensor: Any) -> Any:
    """Return [N, ...] of all processes as [world * N, ...], for losses that compare samples of a batch.

    Gradient flows only to the rows of this process, times the number of processes, because gradients are
    averaged later. Without gradient, in evaluation, rows are not exchanged, because processes may have
    different numbers of batches.
    """
    if world_size() == 1:
        return tensor
    import paddle

    if not paddle.is_grad_enabled():
        return tensor

    parts: list[Any] = []
    fixed = tensor.detach()
    _exchange(paddle.distributed.all_gather, parts, fixed)
    parts[rank()] = fixed + (tensor - fixed) * world_size()  # the value is exactly `tensor`
    return paddle.concat(parts)


def average_gradients(parameters: list[Any], buffers: list[Any], flag: bool) -> bool:
    """Average gradients and BatchNorm statistics over the processes; return whether any raised `flag`.

    A parameter without gradient in some processes has gradient zero there; if it has none in all processes,
    it keeps none. Gradients are exchanged in float32.

    Args:
        parameters: the same trainable parameters, in the same order, in every process.
        buffers: float32 tensors that forward passes change, in the same order in every process.
        flag: a fact that all processes must know at the same step, such as a request to stop.

    Returns:
        whether any process raised its flag.
    """
    if world_size() == 1:
        return flag
    import paddle

    has = [parameter.grad is not None for parameter in parameters]
    notes = paddle.to_tensor([float(flag), *map(float, has)], dtype="float32")
    grads = [
        parameter.grad.detach().astype("float32").reshape([-1])
        if present
        else paddle.zeros([parameter.size], dtype="float32")
        for parameter, present in zip(parameters, has, strict=True)
    ]
    flat = paddle.concat([notes, *grads, *(buffer.detach().reshape([-1]) for buffer in buffers)])
    _exchange(paddle.distributed.all_reduce, flat)
    head = flat[: len(notes)].numpy()
    mean = flat[len(notes) :] / world_size()
    parts = paddle.split(mean, [tensor.size for tensor in (*parameters, *buffers)])
    for parameter, present, part in zip(parameters, head[1:], parts, strict=False):
        if present:
            _set_gradient(parameter, part.reshape(parameter.shape).astype(parameter.dtype))
    for buffer, part in zip(buffers, parts[len(parameters) :], strict=True):
        buffer.set_value(part.reshape(buffer.shape))
    return bool(head[0])


def _set_gradient(parameter: Any, value: Any) -> None:
    if parameter.grad is None:
        parameter.grad = value
    else:
        parameter.grad.set_value(value)
