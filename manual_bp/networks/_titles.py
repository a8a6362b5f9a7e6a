"""What there is: the built-in networks by module, in the order in which they are listed, one line about each.

Apart from the networks themselves, so that to list them needs no NumPy.
"""

from __future__ import annotations

#: Module -> the networks that its BUILDERS build, in their order -> title.
TITLES = {
    "three_layer": {
        "three-layer": "convolution, ReLU, max pooling, dense, sigmoid; one digit against another (seed 000)",
    },
    "kernel_gradient": {
        "kernel-gradient": "one 2x2 kernel, its printed gradient and one step of gradient descent (seed 001)",
    },
    "two_conv": {
        "two-conv-two-hidden": "two convolutions, two hidden layers, sigmoids; all ten digits (seed 002)",
        "two-conv-pooled": "the same with subsampling by maximum and by mean; all ten digits (seed 002)",
    },
    "conv1d": {
        "conv1d": "two convolutions in one dimension, the derivation of seed 002",
    },
    "large": {
        "lenet": "LeNet-5 on 28x28 images; all ten digits",
        "vgg-block": "two 3x3 convolutions with 64 filters on 32x32 images",
        "vgg11": "VGG-11 on 32x32 images, nine million parameters; all ten digits",
    },
    "design_windows": {
        "design-geometry": "stride, padding, dilation, an asymmetric kernel, pooling that does not tile",
        "design-channels": "several channels, two convolutions in a row, asymmetric kernels",
        "design-groups": "grouped and depthwise convolutions",
        "design-padding": "padding by reflection, repetition and the other end; padding 'same'",
        "design-overlap": "max pooling with overlapping, padded, dilated windows, and with rounding up",
        "design-mean-pool": "average pooling with overlap, padding counted or not, another divisor",
        "design-1d": "convolution and pooling in one dimension",
        "design-3d": "convolution and pooling in three dimensions",
    },
    "design_graph": {
        "design-residual": "residual branches, one of them projected; gradients of several readers add up",
        "design-twice": "a step added to itself, and a step read twice",
        "design-batch-norm": "batch normalisation in training",
        "design-batch-norm-eval": "batch normalisation by its running statistics",
        "design-layer-norm": "layer normalisation over one and over several axes",
        "design-activations": "leaky ReLU, both forms of GELU, SiLU, softplus, softmax",
        "design-sgd": "one step of SGD with Nesterov's momentum and weight decay",
        "design-adam": "one step of Adam with weight decay",
        "design-adamw": "one step of AdamW",
    },
    "design_losses": {
        "design-loss-bce": "binary cross-entropy, summed",
        "design-loss-logits": "binary cross-entropy of logits, weighted",
        "design-loss-mse": "mean squared error",
        "design-loss-half": "half the sum of the squared errors, as in seed 001",
        "design-loss-l1": "mean absolute error",
        "design-loss-huber": "Huber's loss",
        "design-loss-smooth-l1": "smooth absolute error, summed",
        "design-loss-nll": "negative log-likelihood, weighted",
        "design-loss-cross-entropy": "cross-entropy, summed",
        "design-loss-smoothing": "cross-entropy with class weights and label smoothing",
        "design-loss-pixels": "cross-entropy of every pixel",
    },
}
