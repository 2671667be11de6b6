"""Train several recipes in turn, with one more network; without BatchNorm, splitting a batch is exact."""

import sys

from paddle import nn

from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer
from ppcls.cli import main


class Plain(TheseusLayer):
    """Two convolutions and a classifier."""

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


register_network(Plain, "Plain")

if __name__ == "__main__":
    sys.exit(max(main(["train", "-c", path]) for path in sys.argv[1:]))
