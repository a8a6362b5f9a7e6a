"""Designed networks: windows that do not tile, overlap, are dilated, padded, grouped, in one to three dimensions.

Images are 9x7 where a mistake could exchange rows and columns, and no kernel is square where it could be transposed.
"""

from __future__ import annotations

from manual_bp import nn
from manual_bp.network import Network, chain


def geometry() -> Network:
    """Everything a convolution's windows can do at once, and a pooling that does not tile its input."""
    return chain(
        "design-geometry",
        {
            "conv": nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),  # (N, 3, 5, 9)
            "relu": nn.ReLU(),
            "pool": nn.MaxPool2d(2),  # (N, 3, 2, 4): the last row and column are in no window
            "flat": nn.Flatten(),  # (N, 24)
            "fc": nn.Linear(24, 1),
            "sigmoid": nn.Sigmoid(),
        },
        nn.BCELoss(),
        (2, 9, 7),
    )


def channels() -> Network:
    """Two convolutions in a row, so that a wrong dx of the second shows in the weight gradients of the first."""
    return chain(
        "design-channels",
        {
            "conv1": nn.Conv2d(3, 4, (2, 3)),  # (N, 4, 8, 5)
            "tanh1": nn.Tanh(),
            "conv2": nn.Conv2d(4, 5, (3, 2)),  # (N, 5, 6, 4)
            "tanh2": nn.Tanh(),
            "flat": nn.Flatten(),  # (N, 120)
            "fc": nn.Linear(120, 10),
        },
        nn.CrossEntropyLoss(),
        (3, 9, 7),
    )


def groups() -> Network:
    """Groups of channels, and one filter for each channel."""
    return chain(
        "design-groups",
        {
            "conv1": nn.Conv2d(4, 6, 3, groups=2),  # (N, 6, 7, 5)
            "relu1": nn.ReLU(),
            "conv2": nn.Conv2d(6, 12, (3, 2), padding=1, groups=6, bias=False),  # (N, 12, 7, 6), depthwise
            "tanh2": nn.Tanh(),
            "flat": nn.Flatten(),  # (N, 504)
            "fc": nn.Linear(504, 3),
        },
        nn.CrossEntropyLoss(),
        (4, 9, 7),
    )


def padding() -> Network:
    """Padding that copies the image instead of adding zeros, and padding 'same' with dilation."""
    return chain(
        "design-padding",
        {
            "reflect": nn.Conv2d(1, 2, 3, padding=(2, 1), padding_mode="reflect"),  # (N, 2, 11, 7)
            "tanh1": nn.Tanh(),
            "circular": nn.Conv2d(2, 2, (2, 3), padding=(1, 2), padding_mode="circular"),  # (N, 2, 12, 9)
            "tanh2": nn.Tanh(),
            "replicate": nn.Conv2d(2, 2, 3, padding=1, stride=2, padding_mode="replicate"),  # (N, 2, 6, 5)
            "tanh3": nn.Tanh(),
            "same": nn.Conv2d(2, 1, (3, 5), padding="same", dilation=(2, 1)),  # (N, 1, 6, 5)
            "tanh4": nn.Tanh(),
            "flat": nn.Flatten(),  # (N, 30)
            "fc": nn.Linear(30, 1),
        },
        nn.BCEWithLogitsLoss(),
        (1, 9, 7),
    )


def overlap() -> Network:
    """Windows that share elements: one winner may collect several errors."""
    return chain(
        "design-overlap",
        {
            "conv": nn.Conv2d(1, 3, 3, padding=1),  # (N, 3, 9, 7)
            "relu": nn.ReLU(),
            "pool1": nn.MaxPool2d(3, stride=2, padding=1),  # (N, 3, 5, 4)
            "pool2": nn.MaxPool2d((2, 1), stride=1, dilation=(2, 1)),  # (N, 3, 3, 4)
            "pool3": nn.MaxPool2d(2, stride=2, ceil_mode=True),  # (N, 3, 2, 2)
            "flat": nn.Flatten(),  # (N, 12)
            "fc": nn.Linear(12, 1),
            "sigmoid": nn.Sigmoid(),
        },
        nn.BCELoss(),
        (1, 9, 7),
    )


def mean_pool() -> Network:
    """Means over overlapping and padded windows, each with its own divisor."""
    return chain(
        "design-mean-pool",
        {
            "conv": nn.Conv2d(2, 3, 3, padding=1),  # (N, 3, 9, 7)
            "tanh": nn.Tanh(),
            "pool1": nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),  # (N, 3, 5, 4)
            "pool2": nn.AvgPool2d(2, stride=1, padding=1),  # (N, 3, 6, 5)
            "pool3": nn.AvgPool2d(2, ceil_mode=True, divisor_override=3),  # (N, 3, 3, 3)
            "flat": nn.Flatten(),  # (N, 27)
            "fc": nn.Linear(27, 4),
        },
        nn.MSELoss(),
        (2, 9, 7),
    )


def one_dimension() -> Network:
    """The one-dimensional layers with every option."""
    return chain(
        "design-1d",
        {
            "conv1": nn.Conv1d(2, 4, 3, stride=2, padding=2, dilation=2, groups=2),  # (N, 4, 8)
            "relu": nn.ReLU(),
            "max": nn.MaxPool1d(3, stride=1),  # (N, 4, 6)
            "conv2": nn.Conv1d(4, 3, 2, padding=1),  # (N, 3, 7)
            "mean": nn.AvgPool1d(2, padding=1),  # (N, 3, 4)
            "flat": nn.Flatten(),  # (N, 12)
            "fc": nn.Linear(12, 10),
        },
        nn.CrossEntropyLoss(),
        (2, 16),
    )


def three_dimensions() -> Network:
    """The three-dimensional layers, the last axes all different."""
    return chain(
        "design-3d",
        {
            "conv": nn.Conv3d(1, 2, (2, 3, 2), stride=(1, 2, 1), padding=(1, 1, 0)),  # (N, 2, 5, 3, 4)
            "relu": nn.ReLU(),
            "max": nn.MaxPool3d((2, 1, 2), stride=(1, 1, 2)),  # (N, 2, 4, 3, 2)
            "mean": nn.AvgPool3d((2, 3, 1)),  # (N, 2, 2, 1, 2)
            "flat": nn.Flatten(),  # (N, 8)
            "fc": nn.Linear(8, 2),
        },
        nn.MSELoss(),
        (1, 4, 6, 5),
    )


BUILDERS = (geometry, channels, groups, padding, overlap, mean_pool, one_dimension, three_dimensions)
