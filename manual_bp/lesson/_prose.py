"""Why each formula is so, in plain words, by the type of the step."""

from __future__ import annotations

from manual_bp.nn import Layer

_VALUE = {
    "Conv": "The kernel is laid on every patch of the image in turn, and each patch gives one number: the sum of the "
    "products of what lies on each other.",
    "MaxPool": "Of each window only the largest number goes on.",
    "AvgPool": "Of each window the mean goes on.",
    "Linear": "Every output is the sum of all inputs, each times its own weight.",
    "Flatten": "The numbers are written in one row, channel by channel and row by row; none of them changes.",
    "ReLU": "What is negative becomes 0, the rest stays as it is.",
    "Sigmoid": "Every number is pressed into the range from 0 to 1.",
    "Tanh": "Every number is pressed into the range from -1 to 1.",
    "Add": "Two branches meet: their numbers are added, each to the one in the same place.",
    "BatchNorm": "Each channel is brought to mean 0 and variance 1, then stretched and shifted by learned numbers.",
    "LayerNorm": "Each example is brought to mean 0 and variance 1, then stretched and shifted by learned numbers.",
    "Softmax": "The numbers of a row become probabilities that add up to 1.",
    "LogSoftmax": "The numbers of a row become logarithms of probabilities.",
}

_INPUT = {
    "Conv": "Every element was part of several patches, so it influenced several outputs, each through another "
    "weight of the kernel. What it gets back is the sum of their errors times those weights. The output that saw it "
    "through the last weight lies before the one that saw it through the first: the weights are met in reverse, and "
    "that is the kernel rotated by 180°. Where a patch would reach over the edge, there is no output and no error.",
    "MaxPool": "Only the winner of a window influences the maximum: if it grows a little, the maximum grows as "
    "much; if one of the others grows a little, nothing changes. So the winner gets the whole error of its window, "
    "and each of the others gets exactly 0. Where several tie, the maximum has no derivative; the first takes all, "
    "as in torch.",
    "AvgPool": "Every element of a window influences its mean alike, so each gets the same share of its error.",
    "Linear": "Every input influenced all outputs, each through its own weight, so it gets back the sum of their "
    "errors times those weights: the same matrix, read along the other side (transposed).",
    "Flatten": "The numbers only moved, so the errors move back, each to where its number came from.",
    "ReLU": "Where the input was positive, output and input moved together, and the error passes unchanged. Where "
    "it was negative, the output stayed 0 whatever the input did, and nothing passes. At exactly 0 torch lets "
    "nothing pass.",
    "Sigmoid": "The error is multiplied by the slope of the sigmoid, which its own output gives: a (1 - a).",
    "Tanh": "The error is multiplied by the slope of the hyperbolic tangent, which its own output gives: 1 - a².",
    "Add": "The sum moves as much as either branch does, so each branch gets the whole error.",
    "BatchNorm (evaluation)": "The statistics are given and do not depend on the numbers, so the error comes back "
    "directly only.",
    "BatchNorm": "Each number moves the output directly, and the mean and variance of its channel too; the error "
    "comes back on all three ways.",
    "LayerNorm": "Each number moves the output directly, and the mean and variance of its example too; the error "
    "comes back on all three ways.",
    "Softmax": "If one number of the row grows, its own probability grows and the others shrink.",
    "LogSoftmax": "If one number of the row grows, its own logarithm grows and the others shrink.",
}

_WEIGHT = {
    "Conv": "The same weight was used in every patch of every example. So its gradient is first found for a single "
    "patch, the error of that patch's output times the pixel that lay under the weight, and then summed over all "
    "patches.",
    "Linear": "A weight joins one input with one output: its gradient is the error of that output times that input, "
    "summed over the examples.",
    "Norm": "The scale multiplied every normalised number of its group, so errors times normalised numbers are summed.",
}

_BIAS = {
    "Conv": "The bias was added to every output of its filter, so the errors of all of them are summed.",
    "Linear": "The bias was added to its output in every example, so the errors are summed over the examples.",
    "Norm": "The shift was added to every number of its group, so all their errors are summed.",
}


def of_value(layer: Layer) -> tuple[str, ...]:
    return _found(_VALUE, layer)


def of_input(layer: Layer) -> tuple[str, ...]:
    if type(layer).__name__.startswith("BatchNorm") and not getattr(layer, "training", True):
        return (_INPUT["BatchNorm (evaluation)"],)
    return _found(_INPUT, layer) or (
        "The error is multiplied by the slope of the function at the point where the forward pass was.",
    )


def of_parameter(layer: Layer, name: str) -> tuple[str, ...]:
    return _found(_BIAS if name == "bias" else _WEIGHT, layer)


def _found(table: dict[str, str], layer: Layer) -> tuple[str, ...]:
    kind = type(layer).__name__
    exact = table.get(kind)
    if exact is None:
        exact = next(
            (text for key, text in table.items() if kind.startswith(key) or (key == "Norm" and key in kind)), None
        )
    return (exact,) if exact else ()
