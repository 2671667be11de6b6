"""``ppcls train``, ``eval``, ``infer`` and ``export``: run the engine with a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppcls.commands.command import Command, add_recipe
from ppcls.commands.results import Delivery, add_result_options, result_options
from ppcls.errors import ConfigError
from ppcls.machines import PORT, read_machines

if TYPE_CHECKING:
    from ppcls.config import Recipe
    from ppcls.engine.export import ExportedFiles


def _add_train_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)
    parser.add_argument(
        "--nproc", type=int, metavar="N", help="start N processes on this machine, one for each GPU"
    )
    parser.add_argument(
        "--max-restart",
        "--max_restart",
        type=int,
        metavar="N",
        help="with --nproc and --resume auto: after a failure, start the processes again, at most N times",
    )
    parser.add_argument(
        "--ips",
        metavar="IP,IP",
        help="with --nproc: the addresses of all machines; start the same command on each",
    )
    parser.add_argument(
        "--host", metavar="IP", help="with --ips: the address of this machine, if it is not clear"
    )
    parser.add_argument(
        "--port", type=int, metavar="P", help="with --ips: the port where the processes meet (38714)"
    )
    parser.add_argument(
        "--resume",
        metavar="WHAT",
        help="resume from a checkpoint such as output/ResNet18/latest, or `auto`: from the newest "
        "valid one of the output folder, from the beginning if there is none",
    )


def _add_run_or_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN_FOLDER",
        help="folder of a run, such as output/ResNet18, whose recipe and best weights are used; or give a "
        "recipe with -c",
    )
    add_recipe(parser, required=False)
    parser.add_argument(
        "--weights",
        metavar="WHICH",
        help="weights of RUN_FOLDER: best (default), latest, or a file in it such as epoch_10",
    )


def _add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    _add_run_or_recipe(parser)
    parser.add_argument(
        "--report", metavar="DIR", help="write tables of classes, confusions and mistakes there"
    )


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    _add_run_or_recipe(parser)
    parser.add_argument(
        "--no-latency",
        action="store_true",
        help="do not measure the exported network and the teachers of the recipe afterwards",
    )


def _add_infer_arguments(parser: argparse.ArgumentParser) -> None:
    _add_run_or_recipe(parser)
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="files, folders, patterns, lists (default: Infer.infer_imgs)",
    )
    add_result_options(parser)


def _train(args: argparse.Namespace) -> int:
    overrides: list[str] = list(args.override)
    if args.resume is not None:
        from ppcls.config.loading import override_of

        overrides.append(override_of("Global.checkpoints", args.resume))
    if args.nproc is not None:
        return _launch(args, overrides)
    for option in ("max_restart", "ips", "host", "port"):
        if getattr(args, option) is not None:
            raise ConfigError(
                f"--{option.replace('_', '-')} needs --nproc, the number of processes on this machine"
            )
    from ppcls.config import load_config
    from ppcls.logger import setup_logging

    setup_logging(hold=True)
    config = load_config(args.config, overrides, mode="train")
    from ppcls.engine import Engine

    Engine(config, "train").train()
    return 0


def _launch(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Start ``ppcls train`` in several processes."""
    from ppcls.launch import launch, require_processes

    processes: int = args.nproc
    require_processes(processes)
    machines = None
    if args.ips is not None:
        machines = read_machines(args.ips, args.host, PORT if args.port is None else args.port)
    elif args.host is not None or args.port is not None:
        raise ConfigError(
            f"--{'port' if args.host is None else 'host'} needs --ips, the addresses of all machines"
        )
    restarts: int = args.max_restart or 0
    if restarts < 0:
        raise ConfigError(f"--max-restart: expected 0 or more, got {restarts}")
    from ppcls.config import load_config

    # Read here, too, so that a mistake is reported only once.
    settings = load_config(args.config, overrides, mode="train").Global
    if restarts and settings.checkpoints != "auto":
        given = "" if settings.checkpoints is None else f", got {settings.checkpoints}"
        raise ConfigError(
            f"--max-restart needs --resume auto{given}: a restarted run has to continue where it was"
        )
    arguments = ["train", "-c", args.config]
    for text in overrides:
        arguments += ["-o", text]
    logs = Path(settings.output_dir) / "log"
    return launch(arguments, processes, settings.device, logs, machines=machines, restarts=restarts)


def _load(args: argparse.Namespace, mode: str) -> Recipe:
    """Return the recipe that a command line names: that of a run with its weights, or a file."""
    if (args.run is None) == (args.config is None):
        raise ConfigError(f"{mode}: give the folder of a run, or a recipe with -c")
    if args.run is None:
        if args.weights is not None:
            raise ConfigError(
                f"--weights {args.weights} chooses among the weights of a run's folder; with a recipe use "
                "-o Global.pretrained_model=FILE"
            )
        from ppcls.config import load_config

        return load_config(args.config, args.override, mode=mode)
    from ppcls.engine.from_run import load_run

    return load_run(args.run, args.override, mode, args.weights)


def _eval(args: argparse.Namespace) -> int:
    from ppcls.logger import setup_logging

    setup_logging(hold=True)
    config = _load(args, "eval")
    from ppcls.engine import Engine

    Engine(config, "eval").eval(report=args.report)
    return 0


def _infer(args: argparse.Namespace) -> int:
    if args.config is not None and args.run is not None:  # beside a recipe all are images
        args.run, args.images = None, [args.run, *args.images]
    options = result_options(args)
    delivery = Delivery.of(args, default_form="log")
    config = _load(args, "infer")
    from ppcls.engine import Engine

    images = args.images or config.Infer.infer_imgs
    with delivery.alone():
        engine = Engine(config, "infer")
        postprocess = engine.infer_postprocess(options)
        batches = engine.infer_batches(
            args.images,
            postprocess=postprocess,
            on_error=args.on_error,
            all_probabilities=options.all_probabilities,
        )
        delivery.deliver(batches, postprocess, [images] if isinstance(images, str) else images or [])
    return 0


def _export(args: argparse.Namespace) -> int:
    from ppcls.logger import setup_logging

    setup_logging()
    config = _load(args, "export")
    from ppcls.engine import Engine

    report = Engine(config, "export").export()
    if not args.no_latency:
        _print_costs(config, report)
    return 0


def _print_costs(config: Recipe, report: ExportedFiles) -> None:
    """Print what the networks cost; an export does not depend on it."""
    from ppcls.engine.export_costs import cost_table, measure_costs
    from ppcls.errors import PpclsError
    from ppcls.logger import LOGGER

    try:
        costs = measure_costs(config, report)
    except PpclsError as error:
        LOGGER.warning("size and latency were not measured: %s", error)
    else:
        print(cost_table(costs))


COMMANDS = {
    "train": Command(
        "train the networks of a recipe",
        _add_train_arguments,
        _train,
        writes_files=True,
        joins_processes=True,
    ),
    "eval": Command(
        "evaluate weights on the validation list", _add_eval_arguments, _eval, joins_processes=True
    ),
    "infer": Command("classify images with the network in memory", _add_infer_arguments, _infer),
    "export": Command(
        "write the network for deployment and check it", _add_export_arguments, _export, writes_files=True
    ),
}
