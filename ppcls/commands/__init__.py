"""The commands of ``ppcls``, one file per command: its arguments, and what it does.

Nothing slow is imported here: each command imports what it needs when it runs.
"""

from ppcls.commands import (
    check_data,
    compare,
    convert_weights,
    distill,
    explain,
    init,
    layers,
    list_components,
    mine,
    models,
    predict,
    report,
    run,
    shard,
    split,
    sweep,
    teacher,
    validate,
)
from ppcls.commands.command import Command

COMMANDS: dict[str, Command] = {
    **run.COMMANDS,
    "init": init.COMMAND,
    "distill": distill.COMMAND,
    "validate": validate.COMMAND,
    "check-data": check_data.COMMAND,
    "predict": predict.COMMAND,
    "list": list_components.COMMAND,
    "explain": explain.COMMAND,
    "models": models.COMMAND,
    "layers": layers.COMMAND,
    "convert-weights": convert_weights.COMMAND,
    "report": report.COMMAND,
    "compare": compare.COMMAND,
    "sweep": sweep.COMMAND,
    "mine": mine.COMMAND,
    "shard": shard.COMMAND,
    "split": split.COMMAND,
    "teacher": teacher.COMMAND,
}

__all__ = ["COMMANDS", "Command"]
