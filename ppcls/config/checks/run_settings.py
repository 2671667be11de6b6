"""Settings of ``Global`` that contradict each other."""

from __future__ import annotations

from ppcls.config.mistakes import Findings
from ppcls.config.schema import GlobalSpec


def check_run_settings(settings: GlobalSpec, mode: str, findings: Findings) -> None:
    """Report settings of a training run or an export that have no effect beside others."""
    if mode == "export" and settings.onnx_batch_size is not None and not settings.export_onnx:
        findings.error("Global.onnx_batch_size", "has no effect without Global.export_onnx: True")
    if mode != "train":
        return
    if settings.checkpoints not in (None, "", "auto") and settings.pretrained_model:
        findings.warn("Global.pretrained_model", "has no effect: Global.checkpoints is resumed")
    if settings.eval_during_train and settings.start_eval_epoch > settings.epochs:
        findings.warn(
            "Global.start_eval_epoch", f"later than the last of {settings.epochs} epochs: no evaluation"
        )
