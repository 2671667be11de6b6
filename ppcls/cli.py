"""The command ``ppcls``. Nothing heavy is imported before the arguments are understood."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ppcls.console import Console, patient_console
from ppcls.distributed import announce_end
from ppcls.errors import PADDLE_MISSING, ConfigError, PpclsError, TrainingError, hint
from ppcls.job import alone, end_with_launcher, read_job, world_size

MODES = {
    "train": "train the networks of a recipe",
    "eval": "evaluate weights on the validation list",
    "infer": "classify images with the network in memory",
    "export": "write the network for deployment and check it",
}
TOGETHER = ("train", "eval")  # run in several processes where a launcher started several
WRITING = ("train", "export", "convert-weights", "mine")  # write files: what they print is not their result


class _Parser(argparse.ArgumentParser):
    """A parser that answers an unknown option with the usage of its own command and the nearest option."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is unknown here: the parser above would show the usage of ``ppcls`` alone."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [text for text in self._option_string_actions if text.startswith("--")]
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{hint(unknown[0], options)}".rstrip("."))
        return known, unknown


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(prog="ppcls", description="Knowledge distillation on PaddlePaddle.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for mode, text in MODES.items():
        command = commands.add_parser(mode, help=text, description=text)
        command.add_argument("-c", "--config", required=True, metavar="FILE", help="recipe (YAML)")
        _add_overrides(command)
        if mode == "train":
            command.add_argument(
                "--nproc", type=int, metavar="N", help="start N processes on this machine, one for each GPU"
            )
            command.add_argument(
                "--resume",
                metavar="WHAT",
                help="resume from a checkpoint such as output/ResNet18/latest, or `auto`: from the newest "
                "valid one of the output folder, from the beginning if there is none",
            )
        if mode == "eval":
            command.add_argument(
                "--report", metavar="DIR", help="write tables of classes, confusions and mistakes there"
            )
    command = commands.add_parser("validate", help="check recipes without running them")
    command.add_argument("-c", "--config", required=True, action="append", metavar="FILE", help="repeatable")
    command.add_argument(
        "--mode", choices=list(MODES), default="train", help="what the recipe is to be used for"
    )
    _add_overrides(command)
    _add_check_data(commands)
    command = commands.add_parser("predict", help="classify images with an exported network")
    command.add_argument("--model-dir", required=True, metavar="DIR", help="folder written by `ppcls export`")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders or .txt lists")
    command.add_argument("--batch-size", type=int, default=8)
    command.add_argument("--device", default="auto", choices=["auto", "cpu", "gpu"])
    command.add_argument("--on-error", default="raise", choices=["raise", "skip"], help="unreadable images")
    _add_models(commands)
    _add_layers(commands)
    _add_convert_weights(commands)
    _add_mine(commands)
    return parser


def _add_overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-o",
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting, such as -o Global.epochs=2 (repeatable; the value is read as YAML)",
    )


def _add_check_data(commands: Any) -> None:
    text = "read all images of a recipe once: what would stop a training, and what is odd about them"
    command = commands.add_parser("check-data", help=text, description=text)
    command.add_argument("-c", "--config", required=True, metavar="FILE", help="recipe (YAML)")
    _add_overrides(command)
    command.add_argument("--report", metavar="FILE.json", help="also write all findings there")


def _add_models(commands: Any) -> None:
    text = "list the networks: names, or sizes and published accuracies"
    command = commands.add_parser("models", help=text, description=text)
    command.add_argument("pattern", nargs="?", default="*", help="with wildcards, such as 'ResNet*'")
    command.add_argument(
        "--details",
        action="store_true",
        help="parameters, multiply-adds (of convolutions and matrix products alone, one for each "
        "multiplication), published top-1 with and without SSLD, weights in the cache; a second a network",
    )
    command.add_argument("--json", action="store_true", help="the details as JSON")
    command.add_argument(
        "--input",
        type=_image_shape,
        metavar="C,H,W",
        help="image size of the details (default: that of the published accuracy, mostly 3,224,224)",
    )


def _add_layers(commands: Any) -> None:
    text = "list the layers of networks with their output shapes: what return_patterns can name"
    command = commands.add_parser("layers", help=text, description=text)
    command.add_argument("network", nargs="?", help="as `ppcls models` lists it; or give a recipe with -c")
    command.add_argument("-c", "--config", metavar="FILE", help="recipe (YAML)")
    _add_overrides(command)
    command.add_argument(
        "--input",
        type=_image_shape,
        metavar="C,H,W",
        help="image size (default: Global.image_shape of the recipe, else 3,224,224)",
    )
    command.add_argument("--class-num", type=int, metavar="N", help="classes of a network given by name")
    command.add_argument("--stages", action="store_true", help="only the layers that end a stage")


def _image_shape(text: str) -> tuple[int, ...]:
    sides = [int(side) for side in text.split(",") if side.strip().isdecimal()]
    if len(sides) != 3 or len(text.split(",")) != 3 or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"expected channels,height,width such as 3,224,224, got {text!r}")
    return tuple(sides)


def _add_convert_weights(commands: Any) -> None:
    text = "turn a PyTorch file (timm or torchvision names) into weights of one of our networks"
    command = commands.add_parser("convert-weights", help=text, description=text)
    command.add_argument("source", metavar="IN", help=".pth, .pt or .safetensors; PyTorch is not needed")
    command.add_argument("target", metavar="OUT", help=".pdparams file to write")
    command.add_argument("--arch", required=True, metavar="NAME", help="our network, as `ppcls models` lists")
    command.add_argument("--class-num", type=int, default=1000, metavar="N", help="default 1000")


def _launch(args: argparse.Namespace) -> int:
    """Start `ppcls train` in several processes."""
    from ppcls.config import load_config
    from ppcls.launch import launch

    config = load_config(args.config, args.override, mode="train")["Global"]  # a mistake is reported once
    arguments = ["train", "-c", args.config, *(part for text in args.override for part in ("-o", text))]
    return launch(arguments, args.nproc, config["device"], Path(config["output_dir"]) / "log")


def _run_engine(args: argparse.Namespace) -> int:
    if getattr(args, "resume", None) is not None:
        args.override.append(f"Global.checkpoints={args.resume}")
    if getattr(args, "nproc", None) is not None:
        if world_size() > 1:
            raise ConfigError(
                f"--nproc starts {args.nproc} processes, but this one is already one of {world_size()} that "
                "a launcher started; use one of both"
            )
        if args.nproc < 1:
            raise ConfigError(f"--nproc: expected at least 1, got {args.nproc}")
        return _launch(args)
    from ppcls.config import load_config
    from ppcls.logger import setup_logging

    setup_logging(hold=args.command in ("train", "eval"))
    config = load_config(args.config, args.override, mode=args.command)
    from ppcls.engine import Engine

    options = {"report": args.report} if args.command == "eval" else {}
    getattr(Engine(config, args.command), args.command)(**options)
    return 0


def _validate(args: argparse.Namespace) -> int:
    from ppcls.config import load_config
    from ppcls.logger import setup_logging

    setup_logging()
    failed = 0
    for path in args.config:
        try:
            load_config(path, args.override, mode=args.mode)
        except PpclsError as error:
            failed += 1
            print(error, file=sys.stderr)
        else:
            print(f"{path}: valid")
    return 2 if failed else 0


def _check_data(args: argparse.Namespace) -> int:
    from ppcls.engine.data_report import run_check
    from ppcls.logger import setup_logging

    setup_logging()
    return 0 if run_check(args.config, args.override, args.report, print) else 2


def _predict(args: argparse.Namespace) -> int:
    from ppcls.deploy import Predictor
    from ppcls.logger import setup_logging

    setup_logging()
    predictor = Predictor(
        args.model_dir, batch_size=args.batch_size, device=args.device, on_error=args.on_error
    )
    for result in predictor.predict(args.images):
        print(result)
    return 0


def _models(args: argparse.Namespace) -> int:
    from ppcls.arch import list_models

    names = list_models(args.pattern)
    if not names:
        print(f"no network matches {args.pattern!r}", file=sys.stderr)
        return 2
    if not (args.details or args.json or args.input):
        print("\n".join(names))
        return 0
    from ppcls.engine.models import describe_models, render_models, to_json

    rows = describe_models(names, args.input)
    print(to_json(rows) if args.json else render_models(rows))
    return 0


def _layers(args: argparse.Namespace) -> int:
    if (args.network is None) == (args.config is None):
        raise ConfigError("layers: give the name of a network, or a recipe with -c")
    if args.config is None and args.override:
        raise ConfigError("layers: -o changes a recipe; give one with -c")
    if args.config is not None and args.class_num is not None:
        raise ConfigError("layers: --class-num is for a network given by name; use -o Arch.class_num=...")
    from ppcls.engine.layers import list_layers, read_arch, render_layers

    if args.config is None:
        arch, shape = {"name": args.network, "class_num": args.class_num or 1000}, [3, 224, 224]
    else:
        arch, shape = read_arch(args.config, args.override)
    print(render_layers(list_layers(arch, args.input or shape), args.stages))
    return 0


def _convert_weights(args: argparse.Namespace) -> int:
    from ppcls.arch import create_model
    from ppcls.logger import setup_logging
    from ppcls.weights import convert, find_file, load_into, read_params, torch_options, write_params

    setup_logging()
    target = args.target if args.target.endswith(".pdparams") else f"{args.target}.pdparams"
    options = torch_options(args.arch)
    network = create_model(args.arch, class_num=args.class_num, **options)
    source = find_file(args.source, "IN")
    params = convert(read_params(source), network, args.arch, str(source))
    load_into(network, params, str(source), allow_missing_head=False)
    write_params(target, network.state_dict())
    needs = "".join(f"; use it with {option}: {value}" for option, value in options.items())
    print(f"{target}: {len(params)} tensors of {args.arch}{needs}")
    return 0


def _add_mine(commands: Any) -> None:
    text = "list the images of an unlabelled pool that a teacher is sure of (the data of SSLD)"
    command = commands.add_parser("mine", help=text, description=text)
    command.add_argument("-c", "--config", required=True, metavar="FILE", help="recipe (YAML)")
    _add_overrides(command)
    command.add_argument("--pool", required=True, metavar="PATH", help="folder, or list with a path a line")
    command.add_argument("--output", required=True, metavar="FILE", help="list to write; counts go beside it")
    command.add_argument("--top-k", type=int, metavar="N", help="images of a class (default: all)")
    command.add_argument("--threshold", type=float, default=0.0, metavar="P", help="least probability")
    command.add_argument("--network", metavar="NAME", help="the teacher (default: the frozen network)")
    command.add_argument("--label", choices=["teacher", "zero"], default="teacher", help="column of labels")
    command.add_argument("--image-root", metavar="DIR", help="folder that paths start from")
    command.add_argument(
        "--distance",
        type=int,
        default=50,
        metavar="D",
        help="validation images whose 255-bit hash differs in up to D bits (default 50) count as duplicates",
    )


def _mine(args: argparse.Namespace) -> int:
    from ppcls.config import load_config
    from ppcls.logger import setup_logging

    setup_logging()
    config = load_config(args.config, args.override, mode="eval")
    from ppcls.engine.mine import Mining, mine

    options = {name: getattr(args, name) for name in Mining.__dataclass_fields__}
    print(mine(config, Mining(**options)).render())
    return 0


_COMMANDS: dict[str, Any] = {
    **dict.fromkeys(MODES, _run_engine),
    "validate": _validate,
    "check-data": _check_data,
    "predict": _predict,
    "models": _models,
    "layers": _layers,
    "convert-weights": _convert_weights,
    "mine": _mine,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; default: those of the process.

    Returns:
        exit code: 0 done, 1 training cannot go on, 2 a mistake in config, data, weights or usage,
        128 + signal number when interrupted.
    """
    with patient_console() as output:
        args = build_parser().parse_args(argv)
        if output is not None:
            output.strict = args.command not in WRITING
        code = _exit_code(_run(args, output), output)
        announce_end(code)
        return code


def _exit_code(code: int, output: Console | None) -> int:
    """Return the exit code of a command that would end with `code`, seen what became of its output."""
    if output is None or output.error is None:
        return code
    if output.strict and isinstance(output.error, BrokenPipeError):  # `ppcls layers ResNet50 | head`
        return 128 + signal.SIGPIPE
    print(f"ppcls: standard output could not be written: {output.error.strerror}", file=sys.stderr)
    return code or 1 if output.strict else code


def _silence(command: str) -> None:
    """Keep what libraries say of themselves off the console."""
    if command in ("models", "layers"):
        os.environ.setdefault("GLOG_minloglevel", "2")  # tracing makes Paddle warn of what is not used here
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # it tells of damaged images without their names
    for noise in ("No ccache found", "When training, we now always track global mean"):
        warnings.filterwarnings("ignore", message=noise)  # Paddle's remarks on itself


def _run(args: argparse.Namespace, output: Console | None) -> int:
    """Run a command; return the exit code that it would end with."""
    end_with_launcher()
    _silence(args.command)
    try:
        with nullcontext() if args.command in TOGETHER else alone():
            read_job()
            return int(_COMMANDS[args.command](args))
    except OSError as error:
        if output is None or error is not output.error:
            raise
        return 1
    except PpclsError as error:
        print(f"ppcls: {error}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError) else 2
    except ModuleNotFoundError as error:
        if error.name != "paddle":
            raise
        print(f"ppcls: {PADDLE_MISSING}", file=sys.stderr)
        return 2
    except UnicodeEncodeError as error:
        encoding = sys.getfilesystemencoding()
        if encoding == "utf-8":
            raise
        where = f"{error.object!r}: names of files are {encoding} here, which lacks these characters"
        print(f"ppcls: {where}; set PYTHONUTF8=1 in the environment", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ppcls: interrupted", file=sys.stderr)
        return 130
