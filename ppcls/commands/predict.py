"""``ppcls predict``: classify images with an exported network."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ppcls.commands.command import Command, add_plugins
from ppcls.commands.results import Delivery, add_result_options, given_result_options, result_options

if TYPE_CHECKING:
    from ppcls.deploy import Predictor
    from ppcls.deploy.batches import ResultOptions


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model-dir",
        required=True,
        metavar="DIR",
        help="folder written by `ppcls export`, or its inference.onnx alone",
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files, folders or .txt lists")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "gpu"])
    parser.add_argument(
        "--engine",
        default="auto",
        choices=["auto", "paddle_inference", "onnxruntime"],
        help="auto: ONNX Runtime where it is installed and the folder has an inference.onnx (CPU, float32)",
    )
    parser.add_argument(
        "--precision", default="float32", choices=["float32", "bfloat16"], help="bfloat16: CPUs with AVX-512"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one for each core)")
    parser.add_argument(
        "--benchmark",
        action="store_true",
        help="print how long batches of 1 and of --batch-size images take in each engine and precision",
    )
    add_result_options(parser)
    parser.add_argument(
        "--features",
        action="store_true",
        help="features of a network exported with stop_after, as .npz, .jsonl or lines of JSON",
    )
    add_plugins(parser)


def _run(args: argparse.Namespace) -> int:
    from ppcls.errors import ConfigError
    from ppcls.logger import setup_logging
    from ppcls.plugins import load_plugins

    setup_logging()
    if args.benchmark:
        load_plugins(args.plugin)
        return _benchmark(args)
    options = result_options(args)
    delivery = Delivery.of(args, default_form="jsonl", features=args.features)
    load_plugins(args.plugin)
    if not args.images:
        raise ConfigError("no images: name image files, folders or .txt lists, or give --benchmark")
    with delivery.alone():
        predictor = _open(args, options)
        delivery.deliver(predictor.batches(args.images), predictor.postprocess, args.images)
    return 0


def _open(args: argparse.Namespace, options: ResultOptions) -> Predictor:
    """Open the exported network, which must give what the command line asks for."""
    from ppcls.deploy import Predictor
    from ppcls.errors import ConfigError

    predictor = Predictor(
        args.model_dir,
        batch_size=args.batch_size,
        device=args.device,
        on_error=args.on_error,
        engine=args.engine,
        precision=args.precision,
        threads=args.threads,
        topk=options.topk,
        threshold=options.threshold,
        unknown_name=options.unknown_name,
        all_probabilities=options.all_probabilities,
    )
    if predictor.gives_features and not args.features:
        raise ConfigError(f"{args.model_dir} gives features: use --features")
    if args.features and not predictor.gives_features:
        raise ConfigError(
            f"--features: {args.model_dir} gives classes; export features with -o Arch.stop_after=LAYER "
            "(`ppcls layers NETWORK` lists them)"
        )
    return predictor


def _benchmark(args: argparse.Namespace) -> int:
    """Print latencies; refuse options about images and results, which have no effect."""
    from ppcls.deploy.benchmark import latency_table, measure_latency
    from ppcls.errors import ConfigError

    if args.images:
        raise ConfigError("--benchmark measures the network on random numbers; name no images with it")
    for option, value, default in (
        ("--engine", args.engine, "auto"),
        ("--precision", args.precision, "float32"),
        ("--features", args.features, False),
        *given_result_options(args),
    ):
        if value != default:
            raise ConfigError(
                f"{option} {value}: has no effect with --benchmark, which measures the network alone in "
                "every engine and precision; leave it out"
            )
    for name, count in (("--batch-size", args.batch_size), ("--threads", args.threads)):
        if count is not None and count < 1:
            raise ConfigError(f"{name}: {count}; expected a whole number, at least 1")
    sizes = sorted({1, args.batch_size})
    found = measure_latency(args.model_dir, sizes, device=args.device, threads=args.threads)
    print(latency_table(found, args.threads))
    return 0


COMMAND = Command("classify images with an exported network", _add_arguments, _run)
