"""Write recorded.json: what the installed version of ppcls gives for this run; for a copy of the folder."""

import json

from ppcls.config import load_config
from ppcls.engine import Engine

LATEST = ["Global.pretrained_model=output/DistillationModel/latest"]
MEASURED = ("lr", "batch_cost", "reader_cost", "ips")


def engine(mode: str, overrides: list[str]) -> Engine:
    """Return an engine for one command."""
    return Engine(load_config("recipe.yaml", overrides, mode=mode), mode)


found = {
    "eval": engine("eval", LATEST).eval(),
    "infer": {
        result["file_name"]: [
            score for _, score in sorted(zip(result["class_ids"], result["scores"], strict=True))
        ]
        for result in engine("infer", LATEST).infer()
    },
}
engine("train", ["Global.checkpoints=auto"]).train()
with open("output/DistillationModel/metrics.jsonl") as file:
    rows = [json.loads(line) for line in file]
found["resumed"] = [
    {name: value for name, value in row.items() if name not in MEASURED} for row in rows if row["step"] > 5
]
with open("recorded.json", "w") as file:
    json.dump(found, file, indent=1)
    file.write("\n")
