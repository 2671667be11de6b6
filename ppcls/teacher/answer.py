"""What stands in for a network that stands still: it answers through an engine where that agrees."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import paddle
from paddle import Tensor, nn

from ppcls.arch.answering import Answering, Precision
from ppcls.arch.foreign import ForeignModel, PaddleInferenceModel, Runner, cpu_threads
from ppcls.errors import ConfigError, PpclsError
from ppcls.logger import LOGGER
from ppcls.onnx_program import OnnxProgram
from ppcls.runtime import ONNX, Program
from ppcls.teacher.agreement import compare
from ppcls.teacher.cache import stored_program
from ppcls.teacher.cost import pays
from ppcls.teacher.outputs import Layout, rebuild, width
from ppcls.teacher.program import PROGRAM, Images, fingerprint, read_layout, write_program

EAGER = "eager"
AUTO = "auto"
TITLES = {"paddle_inference": "Paddle Inference", "onnxruntime": "ONNX Runtime"}
# From this difference on a stored program may be that of another network; below, it is the precision.
_STALE = {"float32": 0.0, "bfloat16": 0.2}
_SLOWER = 1.25  # times the network's own time: `auto` then leaves the engine alone
Output = Any
Engine = Callable[[Tensor], Output]


class Opened:
    """A program that is open: images in, outputs of the network out."""

    def __init__(self, runner: Runner, layout: Layout) -> None:
        if len(runner.outputs) != width(layout):
            raise ConfigError(f"the program has {len(runner.outputs)} outputs instead of {width(layout)}")
        self.runner = runner
        self.layout = layout

    def __call__(self, x: Tensor) -> Output:
        """Run images [N, C, H, W]."""
        found = self.runner.run(x.numpy(), self.runner.outputs)
        return rebuild(self.layout, [paddle.to_tensor(value) for value in found])


@dataclass(frozen=True)
class Choice:
    """What a network was asked to answer through, and what it answers through: ``engine/precision``."""

    asked: str
    used: str


class Answer:
    """A network that stands still, called like the network itself.

    The first batch of every image size goes both ways. The engine stays if it agrees within the bounds of
    `ppcls.teacher.agreement`; otherwise the network itself answers, and one line says why.

    Args:
        network: in eval mode. Its weights must not change from the first batch on.
        title: its name, for messages.
        wish: engine and precision; ``auto`` is Paddle Inference on the CPU, where that pays.
        images: how many it has to answer for.
        earlier: what the run to resume chose; None for a run that begins.
        keep: keep programs in the cache, for further runs.
        quiet: log what is chosen for those who look for mistakes only.
    """

    def __init__(
        self,
        network: nn.Layer,
        title: str,
        wish: Answering,
        images: int,
        *,
        earlier: Choice | None = None,
        keep: bool = True,
        quiet: bool = False,
    ) -> None:
        self.network = network
        self.title = title
        self.images = images
        self._wish = wish
        self._earlier = earlier
        self._keep = keep
        self._level = logging.DEBUG if quiet else logging.INFO
        self.precision: str = wish.precision or "float32"
        self.asked = f"{wish.engine or AUTO}/{self.precision}"
        self.engine = "paddle_inference" if wish.engine in (None, AUTO) else str(wish.engine)
        self._settled = earlier is not None and earlier.asked in ("", self.asked)
        if self._settled and earlier is not None:
            engine, _, precision = earlier.used.partition("/")
            if engine in TITLES and precision in get_args(Precision):
                self.engine = engine
                self.precision = precision
        self._by_shape: dict[tuple[int, ...], Engine | None] = {}
        self._opened: dict[Images, tuple[Engine, bool]] = {}
        self._fingerprints: dict[Images, str] = {}
        self._given_up: set[Images] = set()

    def __deepcopy__(self, memo: dict[int, Any]) -> Answer:
        network = copy.deepcopy(self.network, memo)
        return Answer(network, self.title, self._wish, self.images, earlier=self._earlier, keep=self._keep)

    def __call__(self, x: Tensor) -> Output:
        """Answer for images [N, C, H, W]."""
        shape = tuple(x.shape[1:])
        if shape not in self._by_shape:
            return self._first(shape, x)
        engine = self._by_shape[shape]
        return self.network(x) if engine is None or x.dtype != paddle.float32 else engine(x)

    @property
    def choice(self) -> Choice:
        """What was asked for, and what is used for the images that came first."""
        first = next(iter(self._by_shape.values()), None)
        return Choice(self.asked, EAGER if first is None else f"{self.engine}/{self.precision}")

    def prepare(self, image_shape: tuple[int, ...]) -> None:
        """Make and open the program for images [C, H, W] ahead of the first batch, if there is to be one."""
        if not self._wanted(image_shape):
            self._by_shape[image_shape] = None
            return
        images = _fixed(image_shape)
        try:
            self._open(images)
        except PpclsError as error:
            if self.precision == "float32":  # otherwise the first batch tries that
                self._given_up.add(images)
                self._refuse(image_shape, str(error))

    def _first(self, shape: tuple[int, ...], x: Tensor) -> Output:
        """Answer for the first batch of a size both ways, and choose."""
        refused = None in list(self._by_shape.values())[:1]
        if refused or (not self._opened and not self._wanted(shape)):
            self._by_shape[shape] = None
            return self.network(x)
        expected = self.network(x)
        if x.dtype != paddle.float32:
            self._refuse(shape, f"images are {x.dtype}, engines take float32")
            return expected
        images = self._images(shape)
        try:
            engine, stored = self._open(images)
            found = engine(x)
            verdict = compare(found, expected, self.precision)
            if stored and verdict.problem and verdict.difference > _STALE[self.precision]:
                LOGGER.info("%s: its stored program is made anew: %s", self.title, verdict.problem)
                engine, _ = self._open(images, anew=True)
                found = engine(x)
                verdict = compare(found, expected, self.precision)
        except PpclsError as error:
            self._given_up.add(images)
            return self._without(shape, x, expected, str(error))
        if verdict.problem:
            return self._without(shape, x, expected, verdict.problem)
        own = _seconds(self.network, x)
        theirs = _seconds(engine, x)
        if self._wish.engine in (None, AUTO) and not self._settled and theirs > _SLOWER * own:
            why = f"it takes {theirs * 1000:.0f} ms for a batch instead of {own * 1000:.0f}"
            return self._without(shape, x, expected, why)
        self._by_shape[shape] = engine
        LOGGER.log(
            self._level,
            "%s answers through %s in %s: relative difference %.1e at most, %.0f instead of %.0f ms a batch",
            self.title,
            TITLES[self.engine],
            self.precision,
            verdict.difference,
            theirs * 1000,
            own * 1000,
        )
        return found

    def _without(self, shape: tuple[int, ...], x: Tensor, expected: Output, why: str) -> Output:
        """Answer without the engine; where the choice is free, float32 follows bfloat16."""
        lower = self.precision == "bfloat16" and not isinstance(self.network, ForeignModel)
        if not lower or self._by_shape or self._wish.engine not in (None, AUTO):
            self._refuse(shape, why)
            return expected
        LOGGER.log(self._level, "%s does not answer in bfloat16: %s", self.title, why)
        self.precision = "float32"
        self._opened.clear()
        self._given_up.clear()
        return self._first(shape, x)

    def _wanted(self, shape: tuple[int, ...]) -> bool:
        """Tell whether an engine is to answer at all."""
        if self.engine == EAGER:
            return False
        if self._settled and self._earlier is not None:
            if self._earlier.asked:
                return self._earlier.used != EAGER
            if self._wish.engine in (None, AUTO):  # a checkpoint of earlier versions
                return False
        if self._wish.engine not in (None, AUTO):
            return True
        if isinstance(self.network, ForeignModel):
            return self.precision != "float32"  # its file is run by an engine anyway
        if not paddle.device.get_device().startswith("cpu"):
            return False
        if pays(self.network, shape, self.images):
            return True
        LOGGER.debug(
            "%s answers by itself: for %d images a program would hardly save the time it takes to make",
            self.title,
            self.images,
        )
        return False

    def _images(self, shape: tuple[int, ...]) -> Images:
        """Return what a program for a shape takes: the size that came first alone, for others any size."""
        fixed = _fixed(shape)
        return fixed if not self._by_shape or fixed in self._opened else Images(shape[0], None)

    def _refuse(self, shape: tuple[int, ...], why: str) -> None:
        """Let the network itself answer for images of a shape, and say why."""
        told = shape in self._by_shape
        self._by_shape[shape] = None
        if not told:
            images = "" if len(self._by_shape) == 1 else f" for images {list(shape)}"
            kept = self._settled and self._earlier is not None and self._earlier.used != EAGER
            LOGGER.log(
                logging.WARNING if kept else self._level,
                "%s answers by itself%s, not through %s in %s%s: %s",
                self.title,
                images,
                TITLES[self.engine],
                self.precision,
                " as until now, so the run continues, but not bit by bit" if kept else "",
                why,
            )

    def _open(self, images: Images, *, anew: bool = False) -> tuple[Engine, bool]:
        """Return the engine for images, and whether its program was stored by an earlier run."""
        if images in self._given_up:
            raise ConfigError("there is no program for it")
        if images not in self._opened or anew:
            self._opened[images] = self._open_anew(images, anew)
        return self._opened[images]

    def _open_anew(self, images: Images, anew: bool) -> tuple[Engine, bool]:
        if isinstance(self.network, ForeignModel):
            return self._open_foreign(), False
        onnx = self.engine == "onnxruntime"
        if onnx and self.precision != "float32":
            raise ConfigError("ONNX Runtime computes in float32")

        def write(folder: Path) -> None:
            write_program(self.network, images, folder, onnx=onnx)

        if images not in self._fingerprints:
            self._fingerprints[images] = fingerprint(self.network, images) + ("-onnx" if onnx else "")
        key = self._fingerprints[images]
        with stored_program(key, write, anew=anew, keep=self._keep) as (folder, stored):
            layout = read_layout(folder)
            return Opened(self._run(folder, onnx), layout), stored

    def _run(self, folder: Path, onnx: bool) -> Runner:
        if onnx:
            return OnnxProgram(folder / ONNX, cpu_threads())
        device = paddle.device.get_device()
        return Program(folder / PROGRAM, device=device, threads=cpu_threads(), precision=self.precision)

    def _open_foreign(self) -> Engine:
        if isinstance(self.network, PaddleInferenceModel) and self.engine == "paddle_inference":
            return self.network.in_precision(self.precision)
        raise ConfigError(f"{type(self.network).__name__} runs its file in its own way")


def _seconds(run: Engine, x: Tensor) -> float:
    """Return how long a batch takes, at best of two."""
    taken = []
    for _ in range(2):
        begin = time.perf_counter()
        run(x)
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _fixed(shape: tuple[int, ...]) -> Images:
    return Images(shape[0], (shape[1], shape[2]))
