"""Training in several processes. Only this module asks which process this is.

Gradients are averaged after the backward pass, instead of wrapping networks in ``paddle.DataParallel``:
frozen networks and losses with parameters need no special case, a parameter without gradient in all processes
stays unchanged as in one process (with DataParallel's default, ranks silently drift apart), and accumulation
needs no exchange. All processes call every collective at the same step.

A process that has lost another one does not end at once: the launcher shows the error of the first process
that ends, which has to be the one with the cause.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ppcls.channel import Channel, open_channel
from ppcls.cpu.processor import available_cores
from ppcls.errors import ConfigError, TrainingError
from ppcls.job import BACKEND, end_with_launcher, limited_patience, patience, read_job, split_endpoint
from ppcls.job import rank as rank  # others ask for it here
from ppcls.job import world_size as world_size
from ppcls.rendezvous import meet

# Seconds in which the launcher, which checks every second, finds the process that failed and ends the others.
GRACE = 10.0
# Seconds in which a process has to end after another one was lost; then it is ended wherever it is.
LONGEST_AFTER_LOSS = 25.0
_LOOK_EVERY = 1.0
_PER_CORE = 4  # more processes for each core are a mistake
LOST = "lost the connection to another one"  # in the message of a process that is not the cause of a failure
STOPPING = "finishing the step, then saving"  # in the log of a process, after the name of a signal
STARTED = "PPCLS_STARTED"  # names the file that tells `ppcls train --nproc` that the start has succeeded
LARGE = 1 << 16  # numbers in a gradient that is worth an exchange of its own
_LOST = (OSError, RuntimeError)  # gloo raises the first, nccl either
_STORE_LOST = (*_LOST, ValueError)  # errors of Paddle's TCP store when the process that serves it has ended
_part: tuple[int, int] | None = None


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
        _exchange(_channel, lost=_STORE_LOST)
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
    _exchange(_channel, lost=_STORE_LOST)


@contextlib.contextmanager
def ending_with_others() -> Iterator[None]:
    """End this process if another one is lost while the block runs and nothing else ends it.

    A process that waits for a lost one in an operation of nccl would wait for half an hour.
    """
    if world_size() == 1:
        yield
        return
    done = threading.Event()
    watch = threading.Thread(target=_end_if_broken, args=(_channel(), done), daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()


def _end_if_broken(channel: Channel, done: threading.Event) -> None:
    while not done.wait(_LOOK_EVERY):
        if channel.is_broken():
            if not done.wait(LONGEST_AFTER_LOSS):
                text = f"ppcls: process {rank()} of {world_size()} {LOST} and still waits for it"
                with contextlib.suppress(OSError, ValueError):
                    print(text, file=sys.stderr, flush=True)
                    sys.stdout.flush()
                os._exit(1)
            return


def gpus_for(processes: int, device: str) -> int:
    """Return the number of GPUs that processes on this machine use, one each; 0 on the CPU.

    Args:
        processes: number of processes.
        device: ``Global.device``.

    Raises:
        ConfigError: if there are fewer GPUs than processes, or far too many processes for the cores.
    """
    import paddle

    gpus = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    if device == "cpu" or not gpus:
        cores = available_cores()
        if processes > _PER_CORE * cores:
            raise ConfigError(
                f"--nproc: {processes} processes on {cores} cores would only use memory, because each loads "
                f"the networks; use at most {cores}"
            )
        return 0
    if gpus < processes:
        raise ConfigError(f"--nproc: {processes} processes need a GPU each, and Paddle sees {gpus}")
    return processes


def announce_start() -> None:
    """Tell `ppcls train --nproc`, if it started this process, that logs may go into the run's folder."""
    file = os.environ.get(STARTED)
    if file:
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
    if world_size() > 1:
        _exchange(lambda: _channel().wait_for_hub(), lost=_STORE_LOST)


def wait_for_all() -> None:
    """Wait for all processes, however long that takes."""
    if world_size() > 1:
        _exchange(lambda: _channel().any_of([False]), lost=_STORE_LOST)


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


def part_of_batch() -> tuple[int, int]:
    """Return which part of the batch of all processes this one works on, and the number of parts.

    These are rank and number of processes, except in a run that was started with another number of processes.
    """
    return (rank(), world_size()) if _part is None else _part


@contextlib.contextmanager
def working_on(part: int, parts: int) -> Iterator[None]:
    """Let :func:`part_of_batch` return `part` and `parts` while the block runs."""
    global _part
    before = _part
    _part = (part, parts)
    try:
        yield
    finally:
        _part = before


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


def average_gradients(parameters: Sequence[Any], buffers: Sequence[Any], flag: bool) -> bool:
    """Average gradients and BatchNorm statistics over the processes; return whether any raised `flag`.

    A parameter without gradient in some processes has gradient zero there; if it has none in all processes,
    it keeps none. All processes first learn which parameters have a gradient anywhere, so they exchange the
    same tensors even if that changes from step to step. Large gradients are averaged where they are; small
    ones and those of lower precision are exchanged together, in float32. No tensor is read on the host.

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

    flagged, *present = any_of([flag, *(parameter.grad is not None for parameter in parameters)])
    with paddle.no_grad():
        used = [parameter for parameter, anywhere in zip(parameters, present, strict=True) if anywhere]
        _give_own_memory(used)
        alone = [p for p in used if p.size >= LARGE and p.dtype == paddle.float32]
        for parameter in alone:
            gradient = parameter.grad
            _exchange(paddle.distributed.all_reduce, gradient)
            gradient.scale_(1 / world_size())
        large = {id(parameter) for parameter in alone}
        small = [parameter.grad for parameter in used if id(parameter) not in large]
        _average_together([*small, *(buffer.detach() for buffer in buffers)])
    return flagged


def any_of(facts: Sequence[bool]) -> list[bool]:
    """Return for each fact on the host whether it holds in any process; all processes have to call this."""
    if world_size() == 1:
        return list(facts)
    found: list[bool] = []
    _exchange(lambda: found.extend(_channel().any_of(facts)))
    return found


@functools.cache
def _channel() -> Channel:
    """Return the connection of all processes; :func:`start` opens it."""
    from ppcls._paddle import shared_store

    host = split_endpoint(read_job().master, "PADDLE_MASTER")[0]
    return open_channel(shared_store(), "ppcls/channel", rank(), world_size(), host)


def _give_own_memory(parameters: Sequence[Any]) -> None:
    """Let each parameter have a gradient in memory of its own, so that it can be averaged in place.

    Paddle may give two parameters the same gradient, or one that is a transposed view.
    """
    import paddle

    taken = set()
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            parameter.grad = paddle.zeros(parameter.shape, parameter.dtype)
        elif not gradient.is_contiguous() or gradient.data_ptr() in taken:
            value = gradient.clone()
            parameter.clear_gradient(False)  # to None; otherwise the value would be written into the old one
            parameter.grad = value
        taken.add(parameter.grad.data_ptr())


def _average_together(tensors: Sequence[Any]) -> None:
    """Replace tensors by their averages over the processes, in one exchange in float32."""
    import paddle

    if not tensors:
        return
    flat = paddle.concat([tensor.astype("float32").reshape([-1]) for tensor in tensors])
    _exchange(paddle.distributed.all_reduce, flat)
    flat.scale_(1 / world_size())
    for tensor, part in zip(tensors, paddle.split(flat, [t.size for t in tensors]), strict=True):
        tensor.copy_(part.reshape(tensor.shape).astype(tensor.dtype), False)
