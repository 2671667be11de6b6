"""What replaces a network that does not change: it lets an engine run the network if the outputs agree."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import paddle
from paddle import Tensor, nn

from ppcls.arch.answering import Answering, Precision
from ppcls.arch.foreign import ForeignModel, PaddleInferenceModel, cpu_threads
from ppcls.errors import ConfigError, PpclsError
from ppcls.logger import LOGGER
from ppcls.onnx_program import OnnxProgram
from ppcls.runner import Runner
from ppcls.runtime import ONNX, Program
from ppcls.teacher.agreement import compare
from ppcls.teacher.ahead import Lookahead
from ppcls.teacher.cache import stored_program
from ppcls.teacher.cost import pays, pays_to_convert, seconds_of_program
from ppcls.teacher.outputs import Layout, rebuild, width
from ppcls.teacher.program import PROGRAM, Images, can_convert, fingerprint, read_layout, write_program

EAGER = "eager"
AUTO = "auto"
TITLES = {"paddle_inference": "Paddle Inference", "onnxruntime": "ONNX Runtime"}
# A difference above this means that a stored program may belong to another network; a smaller difference
# comes from the precision.
_STALE = {"float32": 0.0, "bfloat16": 0.2}
_SLOWER = 1.25  # `auto` does not use an engine that takes more than this times as long as the network itself
Output = Any
Engine = Callable[[Tensor], Output]


class Opened:
    """An open program: called with images, it returns the outputs of the network."""

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
    """What the recipe sets for a network, and what the network uses: ``engine/precision``.

    Attributes:
        asked: engine and precision in the recipe.
        used: engine and precision that were chosen.
    """

    asked: str
    used: str


class Answer:
    """What replaces a network that does not change; it is called like the network.

    "Answering" means: computing the outputs of the network for images.

    The network and the engine both compute the first batch of every image size. The engine is used if it
    agrees within the limits of `ppcls.teacher.agreement`; otherwise the network is used, and one line of the
    log gives the reason.

    Args:
        network: the network in eval mode. Its weights must not change after the first batch.
        title: its name, for messages.
        wish: engine and precision in the recipe; ``auto`` is a program on the CPU, if that saves time. It is
            one of ONNX Runtime if that saves more time than the conversion costs.
        images: number of images that it will get.
        earlier: the choice of the run to resume; None for a new run.
        keep: keep programs in the cache for later runs.
        quiet: log the choice for debugging only.
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
        self._quiet = quiet
        self._level = logging.DEBUG if quiet else logging.INFO
        self.precision: str = wish.precision or "float32"
        self.asked = f"{wish.engine or AUTO}/{self.precision}"
        self.engine = "paddle_inference" if wish.engine in (None, AUTO) else str(wish.engine)
        self._keeps_earlier = earlier is not None and earlier.asked in ("", self.asked)
        if self._keeps_earlier and earlier is not None:
            engine, _, precision = earlier.used.partition("/")
            if engine in TITLES and precision in get_args(Precision):
                self.engine = engine
                self.precision = precision
        self._by_shape: dict[tuple[int, ...], Engine | None] = {}
        self._opened: dict[Images, tuple[Engine, bool]] = {}
        self._fingerprints: dict[Images, str] = {}
        self._failed: set[Images] = set()
        self._tried_onnx = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Answer:
        network = copy.deepcopy(self.network, memo)
        return Answer(
            network,
            self.title,
            self._wish,
            self.images,
            earlier=self._earlier,
            keep=self._keep,
            quiet=self._quiet,
        )

    def __call__(self, x: Tensor) -> Output:
        """Return the outputs for images [N, C, H, W]."""
        shape = tuple(x.shape[1:])
        if shape not in self._by_shape:
            return self._first_output(shape, x)
        engine = self._by_shape[shape]
        return self.network(x) if engine is None or x.dtype != paddle.float32 else engine(x)

    @property
    def choice(self) -> Choice:
        """What the recipe sets, and what is used for the image size that came first."""
        first = next(iter(self._by_shape.values()), None)
        return Choice(self.asked, EAGER if first is None else f"{self.engine}/{self.precision}")

    def prepare(self, image_shape: tuple[int, ...]) -> None:
        """Make and open the program for images [C, H, W] before the first batch, if one is used."""
        if not self._wanted(image_shape):
            self._by_shape[image_shape] = None
            return
        images = _fixed(image_shape)
        try:
            self._open(images)
        except PpclsError as error:
            if self._take_paddle_inference(str(error)):
                self.prepare(image_shape)
            elif self.precision == "float32":  # in bfloat16, the first batch tries float32 next
                self._failed.add(images)
                self._refuse(image_shape, str(error))

    def _first_output(self, shape: tuple[int, ...], x: Tensor) -> Output:
        """Compute the first batch of a size with network and engine, and choose one."""
        refused = None in list(self._by_shape.values())[:1]
        if refused or (not self._opened and not self._wanted(shape)):
            self._by_shape[shape] = None
            return self.network(x)
        expected = self.network(x)
        if x.dtype != paddle.float32:
            self._refuse(shape, f"the images are {x.dtype}, and engines accept float32")
            return expected
        images = self._images(shape)
        try:
            engine, stored = self._open(images)
            found = engine(x)
            verdict = compare(found, expected, self.precision)
            if stored and verdict.problem and verdict.difference > _STALE[self.precision]:
                LOGGER.info("%s: its stored program is made again: %s", self.title, verdict.problem)
                engine, _ = self._open(images, again=True)
                found = engine(x)
                verdict = compare(found, expected, self.precision)
        except PpclsError as error:
            self._failed.add(images)
            return self._output_without_engine(shape, x, expected, str(error))
        if verdict.problem:
            return self._output_without_engine(shape, x, expected, verdict.problem)
        own = _seconds(self.network, x)
        theirs = _seconds(engine, x)
        if self._wish.engine in (None, AUTO) and not self._keeps_earlier and theirs > _SLOWER * own:
            why = f"it takes {theirs * 1000:.0f} ms for a batch instead of {own * 1000:.0f}"
            return self._output_without_engine(shape, x, expected, why)
        self._by_shape[shape] = engine
        LOGGER.log(
            self._level,
            "%s runs through %s in %s: relative difference %.1e at most, %.0f instead of %.0f ms per batch",
            self.title,
            TITLES[self.engine],
            self.precision,
            verdict.difference,
            theirs * 1000,
            own * 1000,
        )
        return found

    def _output_without_engine(self, shape: tuple[int, ...], x: Tensor, expected: Output, why: str) -> Output:
        """Return the output without this engine; if the choice is free, try the next one before.

        After ONNX Runtime that is Paddle Inference, after bfloat16 float32.
        """
        if self._take_paddle_inference(why):
            return self._first_output(shape, x)
        lower = self.precision == "bfloat16" and not isinstance(self.network, ForeignModel)
        if not lower or self._by_shape or self._wish.engine not in (None, AUTO):
            self._refuse(shape, why)
            return expected
        LOGGER.log(self._level, "%s does not run in bfloat16: %s", self.title, why)
        self.precision = "float32"
        self._opened.clear()
        self._failed.clear()
        return self._first_output(shape, x)

    def _take_paddle_inference(self, why: str) -> bool:
        """Choose Paddle Inference after ONNX Runtime failed; return whether the choice is free."""
        free = self._wish.engine in (None, AUTO) and not self._keeps_earlier and not self._by_shape
        if self.engine != "onnxruntime" or not free or isinstance(self.network, ForeignModel):
            return False
        LOGGER.info("%s does not run through ONNX Runtime: %s", self.title, why)
        self.engine = "paddle_inference"
        self._tried_onnx = True
        self._opened.clear()
        self._failed.clear()
        self._fingerprints.clear()
        return True

    def _wanted(self, shape: tuple[int, ...]) -> bool:
        """Tell whether an engine should be tried; `auto` chooses it here."""
        if self.engine == EAGER:
            return False
        if self._keeps_earlier and self._earlier is not None:
            if self._earlier.asked:
                return self._earlier.used != EAGER
            if self._wish.engine in (None, AUTO):  # a checkpoint of earlier versions
                return False
        if self._wish.engine not in (None, AUTO):
            return True
        if isinstance(self.network, ForeignModel):
            return self.precision != "float32"  # an engine runs its file in any case
        if not paddle.device.get_device().startswith("cpu"):
            return False
        if pays(self.network, shape, self.images):
            if self._prefers_onnx(shape):
                self.engine = "onnxruntime"
            return True
        LOGGER.debug(
            "%s runs without an engine: for %d images a program would save less time than it takes to make",
            self.title,
            self.images,
        )
        return False

    def _prefers_onnx(self, shape: tuple[int, ...]) -> bool:
        """Tell whether `auto` should try ONNX Runtime, which is a little faster, before Paddle Inference.

        Programs that are used only once are not converted.
        """
        tried = self._tried_onnx or self._keeps_earlier
        possible = self.precision == "float32" and self._keep and not tried and can_convert()
        return possible and pays_to_convert(self.network, shape, self.images)

    def _images(self, shape: tuple[int, ...]) -> Images:
        """Return which images the program for a shape accepts: the first size only, later any size."""
        fixed = _fixed(shape)
        return fixed if not self._by_shape or fixed in self._opened else Images(shape[0], None)

    def _refuse(self, shape: tuple[int, ...], why: str) -> None:
        """Use the network itself for images of a shape, and log the reason."""
        already_logged = shape in self._by_shape
        self._by_shape[shape] = None
        if not already_logged:
            images = "" if len(self._by_shape) == 1 else f" for images {list(shape)}"
            kept = self._keeps_earlier and self._earlier is not None and self._earlier.used != EAGER
            asked = self._wish.engine not in (None, AUTO) and not self._quiet
            LOGGER.log(
                logging.WARNING if kept or asked else self._level,
                "%s runs without an engine%s, not through %s in %s%s: %s",
                self.title,
                images,
                TITLES[self.engine],
                self.precision,
                " as before, so the run continues, but not bit by bit" if kept else "",
                why,
            )

    def _open(self, images: Images, *, again: bool = False) -> tuple[Engine, bool]:
        """Return the engine for images, and whether its program was stored by an earlier run."""
        if images in self._failed:
            raise ConfigError("it has no program")
        if images not in self._opened or again:
            self._opened[images] = self._open_program(images, again)
        return self._opened[images]

    def _open_program(self, images: Images, again: bool) -> tuple[Engine, bool]:
        if isinstance(self.network, ForeignModel):
            return self._open_foreign(), False
        with self._program(images, again) as (folder, stored):
            return Opened(self._opener(folder, cpu_threads())(), read_layout(folder)), stored

    @contextmanager
    def _program(self, images: Images, again: bool = False) -> Iterator[tuple[Path, bool]]:
        """Yield the folder of the program for images, and whether an earlier run stored it."""
        onnx = self.engine == "onnxruntime"
        if onnx and self.precision != "float32":
            raise ConfigError("ONNX Runtime computes in float32")

        def write(folder: Path) -> None:
            write_program(self.network, images, folder, onnx=onnx)

        if images not in self._fingerprints:
            self._fingerprints[images] = fingerprint(self.network, images) + ("-onnx" if onnx else "")
        with stored_program(self._fingerprints[images], write, again=again, keep=self._keep) as found:
            yield found

    def _opener(self, folder: Path, threads: int) -> Callable[[], Runner]:
        """Return a function that opens the program in a folder; it can be pickled."""
        if self.engine == "onnxruntime":
            return partial(OnnxProgram, folder / ONNX, threads)
        device = paddle.device.get_device()
        return partial(Program, folder / PROGRAM, device=device, threads=threads, precision=self.precision)

    # ------------------------------------------------------------------ beside the training

    def seconds_ahead(self) -> float:
        """Return the estimated time of its program for an image; 0 if no program is used in training."""
        shape = self.shape_ahead
        return seconds_of_program(self.network, shape) if shape else 0.0

    @property
    def shape_ahead(self) -> tuple[int, ...]:
        """[C, H, W] of the images that came first; empty if no program computes them."""
        shape, engine = next(iter(self._by_shape.items()), ((), None))
        return shape if isinstance(engine, Opened) else ()

    def look_ahead(self, lookahead: Lookahead) -> Callable[[], None]:
        """Let a thread open the program of the image size that came first; see :meth:`seconds_ahead`.

        Returns:
            what lets the thread run it from now on.

        Raises:
            PpclsError: if the program cannot be opened again.
            OSError: if it needs a process that cannot be started.
        """
        shape, engine = next(iter(self._by_shape.items()), ((), None))
        if not isinstance(engine, Opened):
            return lambda: None
        with self._program(_fixed(shape)) as (folder, _):
            runner = lookahead.add(
                self.title,
                shape,
                partial(self._opener, folder),
                own_process=self.engine == "paddle_inference",  # it holds Python's lock
            )

        def use() -> None:
            engine.runner = runner

        return use

    def _open_foreign(self) -> Engine:
        if isinstance(self.network, PaddleInferenceModel) and self.engine == "paddle_inference":
            return self.network.in_precision(self.precision)
        raise ConfigError(f"{type(self.network).__name__} runs its file without this engine")


def _seconds(run: Engine, x: Tensor) -> float:
    """Return how long a batch takes: the shorter of two measurements."""
    taken = []
    for _ in range(2):
        begin = time.perf_counter()
        run(x)
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _fixed(shape: tuple[int, ...]) -> Images:
    return Images(shape[0], (shape[1], shape[2]))
