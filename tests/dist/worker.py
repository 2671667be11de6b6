"""Train several recipes in turn, with one more network; count what the processes exchange.

BatchNorm layers are replaced by synchronised ones made of plain formulas, because Paddle has none for the
CPU: with them, and without BatchNorm, several processes compute what one computes.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import paddle
from paddle import nn
from paddle.autograd import PyLayer

from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer
from ppcls.cli import main
from ppcls.distributed import is_main, world_size

COLLECTIVES = ("all_reduce", "all_gather", "all_gather_object", "broadcast")


class Plain(TheseusLayer):
    """Two convolutions and a classifier; no BatchNorm, a layer that is never used."""

    def __init__(self, width: int = 4, class_num: int = 1000) -> None:
        super().__init__()
        self.conv = nn.Conv2D(3, width, 3, stride=2, padding=1)
        self.body = nn.Conv2D(width, 6, 3, stride=2, padding=1)
        self.act = nn.Sigmoid()
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(6, class_num)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        return self.fc(self.flatten(self.pool(self.act(self.body(self.act(self.conv(x)))))))


class SumOverProcesses(PyLayer):
    """A sum in which every process's gradient takes part."""

    @staticmethod
    def forward(ctx, x):
        total = x.clone()
        if world_size() > 1:
            paddle.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return SumOverProcesses.forward(ctx, gradient)


def batch_norm(self, x):
    """BatchNorm1D of [N, C] with the statistics of all processes."""
    if self.training:
        count = x.shape[0] * world_size()
        mean = SumOverProcesses.apply(x.sum(0)) / count
        variance = SumOverProcesses.apply((x - mean).square().sum(0)) / count
        for kept, now in ((self._mean, mean), (self._variance, variance)):
            kept.set_value(self._momentum * kept + (1 - self._momentum) * now.detach())
    else:
        mean, variance = self._mean, self._variance
    return (x - mean) * (variance + self._epsilon).rsqrt() * self.weight + self.bias


def counting(name, counts):
    inner = getattr(paddle.distributed, name)

    def call(*args, **kwargs):
        counts[name] += 1
        return inner(*args, **kwargs)

    return call


def run(paths):
    register_network(Plain, "Plain")
    nn.BatchNorm1D.forward = batch_norm
    counts = Counter()
    for name in COLLECTIVES:
        setattr(paddle.distributed, name, counting(name, counts))
    for path in map(Path, paths):
        counts.clear()
        code = main(["train", "-c", str(path)])
        if code:
            return code
        if is_main():
            path.with_suffix(".collectives.json").write_text(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
