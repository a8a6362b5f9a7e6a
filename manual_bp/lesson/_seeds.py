"""The questions that the seeds ask, and their answers with the run's numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from manual_bp.nn import Array
from manual_bp.report_lesson import LessonStep, Worked
from manual_bp.trace import Trace

from ._number import at, factor, largest, num

_QUESTIONS = {
    "three-layer": (
        "How does the error go on from the pooling layer to the convolution?",
        (
            "Seed 000 derives the way back as far as ∂L/∂a⁽²⁾, its equation (8), and stops before the max pooling: "
            "if a⁽¹⁾[1,1] is the maximum of its window, is its gradient simply that of a⁽²⁾[1,1]? And what about the "
            "other three of the window?"
        ),
    ),
    "kernel-gradient": (
        "What is the gradient of a convolution's kernel?",
        (
            "Seed 001 wants ∂E/∂w of a 2x2 kernel, given the input image and the delta that has come back to the "
            "convolution's output, and then one step of gradient descent."
        ),
    ),
    "two-conv-two-hidden": (
        "How does the delta of one convolution follow from the delta of the next?",
        (
            "Seed 002 knows delta(l) = (w(l+1)' · delta(l+1)) · f' for dense layers and has the delta of c2, an "
            "array with one plane for each example and filter. How do the weights of c2 take it back to c1?"
        ),
    ),
    "two-conv-pooled": (
        "And what does subsampling do to the delta?",
        (
            "In the answer of seed 002 an upsample step stands between two layers where the forward pass had "
            "subsampling. What does it do, for the maximum and for the mean?"
        ),
    ),
    "conv1d": (
        "How does the error go back through a convolution in one dimension?",
        (
            "The answer of seed 002 derives it there, where it can be written out. Some of its indices are wrong; "
            "the equations below are the corrected ones, and the numbers decide."
        ),
    ),
}


def question(network: str) -> tuple[LessonStep, ...]:
    """The question of a seed's network, as the lesson's first step."""
    if network not in _QUESTIONS:
        return ()
    title, text = _QUESTIONS[network]
    note = "Indices of arrays below count from 0: [example, channel, row, column]. Numbers are shown to four digits."
    return (LessonStep(title=title, phase="question", prose=(text, note)),)


def answer(network: str, trace: Trace, y: Array) -> tuple[LessonStep, ...]:
    """The answer, as the last step."""
    if network not in _ANSWERS:
        return ()
    return (LessonStep(title="The answer", phase="answer", prose=_ANSWERS[network](trace, y)),)


def _three_layer(trace: Trace, y: Array) -> tuple[str, ...]:
    error, a1, back = trace["a2.grad"], trace["a1"], trace["a1.grad"]
    n, _, p, r = largest(error)
    window = a1[n, 0, 2 * p : 2 * p + 2, 2 * r : 2 * r + 2].ravel()
    k = int(np.argmax(window))
    i, j = 2 * p + k // 2, 2 * r + k % 2
    winner = f"∂L/∂a⁽¹⁾[{i},{j}]"
    dense = trace["z3.weight"][0, 3 * p + r]
    mean = f" / {len(y)}" if len(y) > 1 else ""
    product = f"({num(trace['a3'][n, 0])} - {num(y[n, 0])}){mean} · {factor(dense)}"
    got = np.count_nonzero(back)
    return (
        (
            f"Yes for the winner, and the other three get exactly 0. Here, in window [{p},{r}] of example {n}, the "
            f"largest of {', '.join(map(num, window))} is a⁽¹⁾[{i},{j}], so {winner} = ∂L/∂a⁽²⁾[{p},{r}] = (a⁽³⁾ - y) "
            f"w⁽³⁾[{3 * p + r}] = {product} = {num(back[n, 0, i, j])}, as the question supposed, and the other three "
            f"get 0. In this run {got} of the {back.size} elements of a⁽¹⁾ get something."
        ),
        (
            "From there: the ReLU stops the error where z⁽¹⁾ is not positive. The kernel's gradient is the sum over "
            f"all patches of the patch's error times the pixel under the weight: {_list(trace['z1.weight.grad'])} for "
            "the nine weights in reading order. The bias gets the sum of all errors, "
            f"{num(trace['z1.bias.grad'][0])}. And ∂L/∂x is the full convolution of the errors with the kernel "
            "rotated by 180°."
        ),
    )


def _kernel_gradient(trace: Trace) -> tuple[str, ...]:
    delta = trace["x1.grad"]
    return (
        (
            "Every weight was used in all 16 patches, so its gradient is the sum over the patches of delta times the "
            f"pixel under it: {_list(trace['x1.weight.grad'], '.6g')} for w[0,0], w[0,1], w[1,0], w[1,1]. Of the "
            f"{delta.size} deltas {np.count_nonzero(delta)} are not 0, those of the winners: behind the convolution "
            "stands a max pooling, and one element of each of its windows gets the error."
        ),
        (
            "The step of gradient descent takes off a tenth of that: the kernel becomes "
            f"{_list(trace['x1.weight.new'], '.6g')}."
        ),
    )


def _two_conv(trace: Trace) -> tuple[str, ...]:
    delta, weight, back = trace["zc2.grad"], trace["zc2.weight"], trace["zc1.grad"]
    return (
        (
            f"By a full convolution: each of the {weight.shape[0]} planes of the delta of c2 "
            f"({delta.shape[2]}x{delta.shape[3]}) is convolved with the kernels of its filter, rotated by 180°, which "
            f"gives one plane ({back.shape[2]}x{back.shape[3]}) for each of the {weight.shape[1]} maps of c1; the "
            "planes of all filters are added; then comes the slope of the activation, element by element. It is the "
            f"dense rule with the matrix product replaced, and the result has the shape {back.shape} of c1. Its "
            f"largest element here is {num(back[largest(back)])}."
        ),
    )


def _pooled(trace: Trace) -> tuple[str, ...]:
    s1, c1, s2, c2 = (trace[name] for name in ("s1.grad", "c1.grad", "s2.grad", "c2.grad"))
    top, mean = largest(s1), largest(s2)
    quarter = c2[mean[0], mean[1], 2 * mean[2], 2 * mean[3]]
    return (
        (
            "It takes the error of each window back to the window's four elements. Behind the maximum the winner "
            f"gets all of it: the {num(s1[top])} of one window goes to one element of c1, and of the {c1.size} "
            f"elements {np.count_nonzero(c1)} get something. Behind the mean each of the four gets a quarter: "
            f"{num(s2[mean])} becomes four times {num(quarter)}. The slope of the activation comes after that."
        ),
    )


def _conv1d(trace: Trace) -> tuple[str, ...]:
    back = trace["y1.grad"]
    n, _, i = largest(back)
    delta, w = trace["x2.grad"][n, 0], trace["x2.weight"][0, 0]
    terms = [f"{factor(delta[i - a])} · {factor(w[a])}" for a in range(3) if 0 <= i - a < len(delta)]
    return (
        (
            f"∂E/∂y⁽¹⁾[{i}] = {' + '.join(terms)} = {num(back[n, 0, i])}: with i−a in the index, the weights stand as "
            "they are. Read along the deltas from left to right the same weights come in reverse, and that reversal "
            "is all that 'flipped' means; to flip them in this formula as well would undo it."
        ),
    )


_ANSWERS: dict[str, Callable[[Trace, Array], tuple[str, ...]]] = {
    "three-layer": _three_layer,
    "kernel-gradient": lambda trace, y: _kernel_gradient(trace),
    "two-conv-two-hidden": lambda trace, y: _two_conv(trace),
    "two-conv-pooled": lambda trace, y: _pooled(trace),
    "conv1d": lambda trace, y: _conv1d(trace),
}


def extra(network: str, quantity: str, trace: Trace, y: Array) -> tuple[Worked, ...]:
    """What a seed's equation says besides: the shortcut (7) of seed 000."""
    if (network, quantity) != ("three-layer", "z3.grad"):
        return ()
    index = largest(trace["z3.grad"])
    a3, m = float(trace["a3"][index]), len(y)
    return (
        Worked(
            label=at("∂L/∂z⁽³⁾", index),
            expression=f"({num(a3)} - {num(y[index])})" + (f" / {m}" if m > 1 else ""),
            result=float(trace["z3.grad"][index]),
            note="the shortcut, equation (7), gives the same number",
        ),
    )


def _list(array: Array, digits: str = ".4g") -> str:
    return ", ".join(f"{float(v) + 0.0:{digits}}" for v in array.ravel())
