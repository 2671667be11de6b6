"""What every hook can do, and how hooks are built and called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ppcls.config.binding import construct
from ppcls.contracts import Component
from ppcls.errors import ConfigError, PpclsError, TrainingError, describe_failure
from ppcls.registry import HOOKS

if TYPE_CHECKING:
    from ppcls.data import Batch
    from ppcls.engine.run import Run


class Hook(Component):
    """Base class of what happens around the training loop; a hook overrides the methods that it needs.

    A hook stands in a recipe under ``Hooks`` when it is registered in ``ppcls.registry.HOOKS``, or is handed
    to :meth:`ppcls.engine.Engine.train`. Its constructor only checks and keeps options: ``ppcls validate``
    calls it too. Every method receives the :class:`~ppcls.engine.run.Run`, whose attributes are described
    there.

    Hooks of the recipe are called first, then those handed to ``train``, then those of ppcls itself. So what
    a hook changes (weights, values of an evaluation) is what is logged, judged, averaged and saved. With
    several processes each has its own hooks; ``ppcls.distributed.is_main()`` tells which one writes files.
    """

    def before_start(self, run: Run) -> None:
        """Called once, before the run changes its folder: the place for what may fail. Nothing is written."""

    def before_train(self, run: Run) -> None:
        """Called once, before the first step; the folder of the run is there."""

    def after_step(self, run: Run, batch: Batch) -> None:
        """Called after every optimizer step.

        Args:
            run: ``run.progress`` already counts the step.
            batch: the last batch of the step; `image` [N, C, H, W] and `label` are arrays.
        """

    def after_eval(self, run: Run, metrics: dict[str, float]) -> None:
        """Called with the averages of an evaluation, before ``after_epoch`` of that epoch.

        ``run.progress.best`` is updated afterwards; ``after_epoch`` sees it. With ``run.ending = True`` the
        epoch under way becomes the last one.

        Args:
            run: ``run.progress.epoch`` is the epoch under way.
            metrics: numbers by name. Those that a hook adds or changes are logged and compared as they are.
        """

    def after_epoch(self, run: Run, epoch: int) -> None:
        """Called when `epoch` is over; ``run.progress`` already stands at the start of the next one."""

    def after_train(self, run: Run) -> None:
        """Called once, after the last epoch; not if the run was stopped or failed."""

    def after_stop(self, run: Run) -> None:
        """Called once instead, if the run was stopped by Ctrl-C or SIGTERM, after the step under way."""


def build_hooks(nodes: Sequence[Any] | None) -> list[Hook]:
    """Return the hooks of the section ``Hooks``.

    Raises:
        ConfigError: for a name or options that are not known, or for something that is no :class:`Hook`.
    """
    hooks = []
    for index, node in enumerate(nodes or ()):
        where = f"Hooks.{index}"
        hook = construct(HOOKS, node, where)
        hooks.append(require_hook(hook, where))
    return hooks


def require_hooks(hooks: Iterable[Any]) -> list[Hook]:
    """Return what was handed to ``Engine.train(hooks=...)``.

    Raises:
        ConfigError: if one is no :class:`Hook`.
    """
    return [require_hook(hook, f"hooks[{index}]") for index, hook in enumerate(hooks)]


def require_hook(hook: Any, where: str) -> Hook:
    """Return `hook` if it is one.

    Raises:
        ConfigError: naming `where` it came from, if it does not derive from :class:`Hook`.
    """
    if isinstance(hook, Hook):
        return hook
    advice = ""
    if isinstance(hook, type) and issubclass(hook, Hook):
        advice = f"; write {hook.__name__}(...), with its options"
    text = f"expected an object of a class derived from ppcls.Hook, got {hook!r}{advice}"
    raise ConfigError(text, path=where)


def call_hooks(hooks: Iterable[Hook], method: str, *arguments: Any) -> None:
    """Call a method of every hook, in order.

    Raises:
        TrainingError: if a hook that is not our own fails, in whatever way; it names hook, method, file and
            line. What our own hooks raise is passed on as it is.
    """
    for hook in hooks:
        try:
            getattr(hook, method)(*arguments)
        except Exception as error:
            kind = type(hook)
            if kind.__module__.partition(".")[0] == __name__.partition(".")[0]:
                raise
            reason = str(error) if isinstance(error, PpclsError) else describe_failure(error)
            raise TrainingError(f"hook {kind.__name__}, {method}: {reason}") from error
