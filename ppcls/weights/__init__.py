"""Weights: reading and writing files, finding official ones, and loading them into networks."""

from __future__ import annotations

from ppcls.files import sync_folder, write_atomic
from ppcls.weights.convert import convert, torch_options
from ppcls.weights.loss_parameters import load_loss_parameters, log_left_out, split_loss_parameters
from ppcls.weights.parameter_files import (
    find_file,
    has_torch_layout,
    read_params,
    read_state,
    write_params,
    write_state,
)
from ppcls.weights.pretrained import ClassifierError, LoadSummary, in_our_names, load_into, load_pretrained
from ppcls.weights.sources import cache_folder, fetch, official_url
from ppcls.weights.values import untrained

__all__ = [
    "ClassifierError",
    "LoadSummary",
    "cache_folder",
    "convert",
    "fetch",
    "find_file",
    "has_torch_layout",
    "in_our_names",
    "load_into",
    "load_loss_parameters",
    "load_pretrained",
    "log_left_out",
    "official_url",
    "read_params",
    "read_state",
    "split_loss_parameters",
    "sync_folder",
    "torch_options",
    "untrained",
    "write_atomic",
    "write_params",
    "write_state",
]
