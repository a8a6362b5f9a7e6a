"""The networks that the campaigns plant mistakes in: the built-in ones, and a few small ones for what those lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from manual_bp import networks, nn
from manual_bp.network import INPUT, Network, Node, chain


def square() -> Network:
    """Weight matrices that can be transposed unnoticed, and kernels with as many channels in as out."""
    return chain(
        "square",
        {
            "conv": nn.Conv2d(2, 2, 3),  # (N, 2, 3, 3)
            "relu": nn.ReLU(),
            "flat": nn.Flatten(),  # (N, 18)
            "fc1": nn.Linear(18, 6),
            "tanh": nn.Tanh(),
            "fc2": nn.Linear(6, 6),
        },
        nn.MSELoss(),
        (2, 5, 5),
        title="square matrices",
    )


def edges() -> Network:
    """Padded maxima of negative numbers, and means that do not tile."""
    return chain(
        "edges",
        {
            "conv": nn.Conv2d(1, 2, 2),  # (N, 2, 8, 6)
            "max": nn.MaxPool2d(3, stride=2, padding=1),  # (N, 2, 4, 3)
            "mean": nn.AvgPool2d((3, 2)),  # (N, 2, 1, 1)
            "flat": nn.Flatten(),
            "fc": nn.Linear(2, 3),
        },
        nn.BCEWithLogitsLoss(),
        (1, 9, 7),
        title="padded pooling of negative numbers",
    )


def branches() -> Network:
    """One step that three others read, of three kinds."""
    nodes = (
        Node("fc1", nn.Linear(8, 5), (INPUT,)),
        Node("relu", nn.ReLU(), ("fc1",)),
        Node("fc2", nn.Linear(5, 5), ("relu",)),
        Node("tanh", nn.Tanh(), ("relu",)),
        Node("sum1", nn.Add(), ("fc2", "tanh")),
        Node("sum2", nn.Add(), ("sum1", "relu")),
        Node("fc3", nn.Linear(5, 1), ("sum2",)),
    )
    return Network(
        name="branches", nodes=nodes, loss=nn.HalfSquaredError(), input_shape=(8,), title="one step read three times"
    )


def faint() -> Network:
    """A normalisation whose ε is large enough to be seen in float32."""
    layers = {"norm": nn.LayerNorm(8, eps=0.01), "fc": nn.Linear(8, 3)}
    return chain("faint", layers, nn.MSELoss(), (8,), title="a large ε")


OWN: Mapping[str, Callable[[], Network]] = {"square": square, "edges": edges, "branches": branches, "faint": faint}

#: Too large to be judged hundreds of times.
LARGE = ("lenet", "vgg-block", "vgg11")

NAMES = (*(name for name in networks.NETWORKS if name not in LARGE), *OWN)


def network_of(name: str) -> Network:
    """A built-in network, or one of those above."""
    return OWN[name]() if name in OWN else networks.get(name)
