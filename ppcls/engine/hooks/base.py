"""What every hook can do, and how hooks are built and called."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ppcls.config.binding import construct
from ppcls.contracts import Component, PluginErrors, breaches_of_object, is_ours, where_defined
from ppcls.errors import ConfigError, TrainingError, hint
from ppcls.logger import LOGGER
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

    does_nothing_alone = True

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

    def state(self) -> Mapping[str, Any]:
        """Return what this hook has to know again when the run is resumed.

        Called whenever a checkpoint is written, which keeps the result: numbers, texts, lists and maps of
        them, as JSON has them. With several processes, that of process 0 is kept.
        """
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` returned; called before :meth:`before_start` of a resumed run."""


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


def require_hooks(hooks: Any) -> list[Hook]:
    """Return what was handed to ``Engine.train(hooks=...)`` as a list; null means none.

    Raises:
        ConfigError: if it is no list, or one of them is no :class:`Hook`.
    """
    if hooks is None:
        return []
    if not isinstance(hooks, Iterable) or isinstance(hooks, str | Mapping):
        advice = f"; write hooks=[{type(hooks).__name__}(...)]" if isinstance(hooks, Hook) else ""
        raise ConfigError(f"expected a list of hooks, got {hooks!r}{advice}", path="hooks")
    return [require_hook(hook, f"hooks[{index}]") for index, hook in enumerate(hooks)]


def require_hook(hook: Any, where: str) -> Hook:
    """Return `hook` if it is one.

    Raises:
        ConfigError: naming `where` it came from, if it does not derive from :class:`Hook`.
    """
    if isinstance(hook, Hook):
        _require_effect(hook, where)
        return hook
    advice = ""
    if isinstance(hook, type) and issubclass(hook, Hook):
        advice = f"; write {hook.__name__}(...), with its options"
    text = f"expected an object of a class derived from ppcls.Hook, got {hook!r}{advice}"
    raise ConfigError(text, path=where)


def _require_effect(hook: Hook, where: str) -> None:
    """Refuse a hook of which nothing would be called, or would fail when it is called.

    Raises:
        ConfigError: naming what breaks the contract, or a method that is probably misspelt.
    """
    if is_ours(hook):
        return
    kind = type(hook)
    known = [name for name in vars(Hook) if not name.startswith("_")]
    for name in dir(kind):
        if name.startswith(("before_", "after_")) and name not in known:
            text = f"{kind.__name__} has a method {name}, which is never called.{hint(name, known)}"
            raise ConfigError(f"{text} A method of its own needs another name", path=where)
    found = breaches_of_object(hook, Hook)
    if found:
        place = where_defined(hook)
        text = f"{kind.__name__}{f' ({place})' if place else ''} is no complete hook: {'; '.join(found)}"
        raise ConfigError(text, path=where)


def hook_states(hooks: Iterable[Hook]) -> dict[str, dict[str, Any]]:
    """Return the states of the hooks that have one, by a name that is each one's own, as JSON holds them.

    Raises:
        TrainingError: naming the hook, if it fails or its state is not what JSON holds.
    """
    found = {}
    for name, hook in _named(hooks):
        with _named_in_errors(hook, "state"):
            given = hook.state()
            if not isinstance(given, Mapping):
                raise TrainingError(f"expected a map such as {{'count': 3}}, got {given!r}")
            state = json.loads(json.dumps(dict(given)))
        if state:
            found[name] = state
    return found


def restore_hooks(hooks: Iterable[Hook], states: Mapping[str, Mapping[str, Any]]) -> None:
    """Give each hook the state that :func:`hook_states` returned for it; say which states belong to none.

    Raises:
        TrainingError: naming the hook, if it fails.
    """
    named = dict(_named(hooks))
    for name, state in states.items():
        if name not in named:
            LOGGER.warning(
                "the checkpoint holds the state of the hook %s, which this run does not have", name
            )
            continue
        with _named_in_errors(named[name], "restore"):
            named[name].restore(state)


def _named(hooks: Iterable[Hook]) -> Iterator[tuple[str, Hook]]:
    """Yield hooks with their names: those of their classes, the second one of a class as ``Name.2``."""
    counts: dict[str, int] = {}
    for hook in hooks:
        name = type(hook).__name__
        counts[name] = counts.get(name, 0) + 1
        yield (name if counts[name] == 1 else f"{name}.{counts[name]}"), hook


def call_hooks(hooks: Iterable[Hook], method: str, *arguments: Any) -> None:
    """Call a method of every hook, in order.

    Raises:
        TrainingError: if a hook that is not our own fails, in whatever way; it names hook, method, file and
            line. What our own hooks raise is passed on as it is.
    """
    for hook in hooks:
        with _named_in_errors(hook, method):
            if method == "after_eval" and not is_ours(hook):
                run, metrics = arguments
                before = list(metrics)
                hook.after_eval(run, metrics)
                _require_numbers(metrics, before)
            else:
                getattr(hook, method)(*arguments)


def _require_numbers(metrics: dict[str, Any], before: Iterable[str]) -> None:
    """Make plain numbers of what a hook has put among the values of an evaluation.

    Raises:
        TrainingError: for a name that is no text, a value that is no number, or one that was there `before`
            and is removed.
    """
    for name in before:
        if name not in metrics:
            raise TrainingError(f"the value {name!r} of the evaluation was removed; change it, or leave it")
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise TrainingError(f"expected a text as the name of a value of the evaluation, got {name!r}")
        text = f"expected a number for {name!r} among the values of the evaluation, got {value!r}"
        if isinstance(value, str):
            raise TrainingError(text)
        try:
            metrics[name] = float(value)
        except (TypeError, ValueError, AssertionError):  # the last is Paddle's, for several numbers
            raise TrainingError(text) from None


def _named_in_errors(hook: Hook, method: str) -> PluginErrors:
    return PluginErrors(hook, f"hook {type(hook).__name__}, {method}", TrainingError, own_errors=True)
