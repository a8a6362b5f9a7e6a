"""Designed networks: branches, normalisations, activations, optimisers."""

from __future__ import annotations

from manual_bp import nn
from manual_bp.network import INPUT, Network, Node, chain


def residual() -> Network:
    """A skip branch, a projected skip branch, and one step that three others read."""
    nodes = (
        Node("conv1", nn.Conv2d(2, 3, 3, padding=1), (INPUT,)),  # (N, 3, 9, 7)
        Node("relu1", nn.ReLU(), ("conv1",)),
        Node("conv2", nn.Conv2d(3, 3, 3, padding=1), ("relu1",)),
        Node("sum1", nn.Add(), ("conv2", "relu1")),  # the identity branch
        Node("relu2", nn.ReLU(), ("sum1",)),
        Node("conv3", nn.Conv2d(3, 4, (3, 2), stride=2), ("relu2",)),  # (N, 4, 4, 3)
        Node("skip", nn.Conv2d(3, 4, (2, 1), stride=(2, 3)), ("relu1",)),  # (N, 4, 4, 3), relu1's third reader
        Node("sum2", nn.Add(), ("skip", "conv3")),
        Node("tanh", nn.Tanh(), ("sum2",)),
        Node("flat", nn.Flatten(), ("tanh",)),  # (N, 48)
        Node("fc", nn.Linear(48, 10), ("flat",)),
    )
    return Network(
        name="design-residual",
        nodes=nodes,
        loss=nn.CrossEntropyLoss(),
        input_shape=(2, 9, 7),
    )


def doubled() -> Network:
    """The smallest branches: a step added to itself, and the input read twice."""
    nodes = (
        Node("flat", nn.Flatten(), (INPUT,)),  # (N, 64)
        Node("fc1", nn.Linear(64, 5), ("flat",)),
        Node("twice", nn.Add(), ("fc1", "fc1")),
        Node("tanh", nn.Tanh(), ("twice",)),
        Node("fc2", nn.Linear(64, 5), ("flat",)),
        Node("sum", nn.Add(), ("tanh", "fc2")),
    )
    return Network(
        name="design-twice",
        nodes=nodes,
        loss=nn.MSELoss(),
        input_shape=(1, 8, 8),
    )


def batch_norm() -> Network:
    """Normalisation over the batch, in training."""
    return chain(
        "design-batch-norm",
        {
            "conv": nn.Conv2d(2, 3, 3, bias=False),  # (N, 3, 7, 5)
            "norm": nn.BatchNorm2d(3),
            "relu": nn.ReLU(),
            "flat": nn.Flatten(2),  # (N, 3, 35)
            "norm1d": nn.BatchNorm1d(3),
            "tanh": nn.Tanh(),
            "row": nn.Flatten(),  # (N, 105)
            "fc": nn.Linear(105, 10),
        },
        nn.CrossEntropyLoss(),
        (2, 9, 7),
    )


def batch_norm_eval() -> Network:
    """Normalisation by stored statistics."""
    return chain(
        "design-batch-norm-eval",
        {
            "conv": nn.Conv2d(2, 3, 3),  # (N, 3, 7, 5)
            "norm": nn.BatchNorm2d(3, training=False),
            "relu": nn.ReLU(),
            "flat": nn.Flatten(),  # (N, 105)
            "fc": nn.Linear(105, 1),
        },
        nn.BCEWithLogitsLoss(),
        (2, 9, 7),
    )


def layer_norm() -> Network:
    """Normalisation of each sample by itself, over one axis and over several."""
    return chain(
        "design-layer-norm",
        {
            "norm1": nn.LayerNorm((8, 8)),  # (N, 1, 8, 8)
            "flat": nn.Flatten(),  # (N, 64)
            "fc1": nn.Linear(64, 12),
            "norm2": nn.LayerNorm(12),
            "gelu": nn.GELU(),
            "fc2": nn.Linear(12, 10),
        },
        nn.CrossEntropyLoss(),
        (1, 8, 8),
    )


def activations() -> Network:
    """The smooth and the kinked activations one after the other."""
    return chain(
        "design-activations",
        {
            "flat": nn.Flatten(),  # (N, 64)
            "fc1": nn.Linear(64, 9),
            "leaky": nn.LeakyReLU(0.1),
            "fc2": nn.Linear(9, 8),
            "gelu": nn.GELU(),
            "fc3": nn.Linear(8, 9),
            "gelu_tanh": nn.GELU(approximate="tanh"),
            "fc4": nn.Linear(9, 8),
            "silu": nn.SiLU(),
            "fc5": nn.Linear(8, 9),
            "softplus": nn.Softplus(beta=2.0),
            "fc6": nn.Linear(9, 10),
            "softmax": nn.Softmax(dim=1),
        },
        nn.MSELoss(reduction="sum"),
        (1, 8, 8),
    )


def _trained(name: str, optimizer: nn.Optimizer) -> Network:
    return chain(
        name,
        {"flat": nn.Flatten(), "fc1": nn.Linear(64, 7), "tanh": nn.Tanh(), "fc2": nn.Linear(7, 1)},  # (N, 1)
        nn.BCEWithLogitsLoss(),
        (1, 8, 8),
        optimizer=optimizer,
    )


def sgd() -> Network:
    """One step with everything that SGD has."""
    optimizer = nn.SGD(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
    return _trained("design-sgd", optimizer)


def adam() -> Network:
    """One step of Adam with the penalty in the gradient."""
    return _trained("design-adam", nn.Adam(lr=0.01, weight_decay=0.1))


def adamw() -> Network:
    """One step of AdamW."""
    return _trained("design-adamw", nn.AdamW(lr=0.01, weight_decay=0.1))


BUILDERS = (residual, doubled, batch_norm, batch_norm_eval, layer_norm, activations, sgd, adam, adamw)
