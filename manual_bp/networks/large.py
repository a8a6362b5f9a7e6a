"""Networks of the size that people train: `lenet`, `vgg-block` and `vgg11`, without the seeds' notation."""

from __future__ import annotations

from manual_bp import nn
from manual_bp.network import Network, chain
from manual_bp.nn import Layer


def lenet() -> Network:
    """LeNet-5 as it is taught today (ReLU, max pooling), on 28x28 images; 61,706 parameters.

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998).
    """
    return chain(
        "lenet",
        {
            "conv1": nn.Conv2d(1, 6, 5, padding=2),  # (N, 6, 28, 28)
            "relu1": nn.ReLU(),
            "pool1": nn.MaxPool2d(2),  # (N, 6, 14, 14)
            "conv2": nn.Conv2d(6, 16, 5),  # (N, 16, 10, 10)
            "relu2": nn.ReLU(),
            "pool2": nn.MaxPool2d(2),  # (N, 16, 5, 5)
            "flat": nn.Flatten(),  # (N, 400)
            "fc1": nn.Linear(400, 120),
            "relu3": nn.ReLU(),
            "fc2": nn.Linear(120, 84),
            "relu4": nn.ReLU(),
            "fc3": nn.Linear(84, 10),  # (N, 10)
        },
        nn.CrossEntropyLoss(),
        (1, 28, 28),
    )


def vgg_block() -> Network:
    """The first block of VGG, two 3x3 convolutions with 64 filters, on 32x32 images in three channels.

    Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition" (2015).
    """
    return chain(
        "vgg-block",
        {
            "conv1": nn.Conv2d(3, 64, 3, padding=1),  # (N, 64, 32, 32)
            "relu1": nn.ReLU(),
            "conv2": nn.Conv2d(64, 64, 3, padding=1),  # (N, 64, 32, 32)
            "relu2": nn.ReLU(),
            "pool": nn.MaxPool2d(2),  # (N, 64, 16, 16)
        },
        nn.MSELoss(),
        (3, 32, 32),
    )


def vgg11() -> Network:
    """VGG configuration A with one dense layer at its end, on 32x32 images; 9,225,610 parameters.

    Source: as `vgg_block`, table 1, column A; the single dense layer is usual for images this small.
    """
    layers: dict[str, Layer] = {}
    channels, conv, pool = 3, 0, 0
    for width in (64, None, 128, None, 256, 256, None, 512, 512, None, 512, 512, None):
        if width is None:
            pool += 1
            layers[f"pool{pool}"] = nn.MaxPool2d(2)
        else:
            conv += 1
            layers[f"conv{conv}"] = nn.Conv2d(channels, width, 3, padding=1)
            layers[f"relu{conv}"] = nn.ReLU()
            channels = width
    layers |= {"flat": nn.Flatten(), "fc": nn.Linear(512, 10)}  # (N, 512) → (N, 10)
    return chain(
        "vgg11",
        layers,
        nn.CrossEntropyLoss(),
        (3, 32, 32),
    )


BUILDERS = (lenet, vgg_block, vgg11)
