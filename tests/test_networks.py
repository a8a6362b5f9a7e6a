"""Every built-in network: it runs, everything in it is written down, and its gradients are derivatives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from latex2mathml.converter import convert

from manual_bp import networks, nn
from manual_bp.equations import describe, latex
from manual_bp.errors import ManualBPError
from manual_bp.network import INPUT, Network, chain
from manual_bp.networks import DESIGN, NETWORKS, SEEDS, from_nhwc, get, to_nhwc
from manual_bp.networks._titles import TITLES
from manual_bp.nn import Array
from manual_bp.probes import Probe, probe
from manual_bp.trace import GRAD

LARGE = ("lenet", "vgg-block", "vgg11")
SMALL = [name for name in NETWORKS if name not in LARGE]
H = 1e-5  # rounding and truncation of the central difference are both near 1e-10 for losses near 1


def test_the_seeds_come_first_and_every_network_says_what_it_is() -> None:
    assert tuple(NETWORKS)[:5] == SEEDS
    assert len(DESIGN) >= 20
    assert all(title and "\n" not in title for title in NETWORKS.values())
    assert [(name, get(name).name) for name in NETWORKS] == [(name, name) for name in NETWORKS]
    for module, titles in TITLES.items():
        assert {name: network.title for name, network in networks._built(module).items()} == titles
        assert list(networks._built(module)) == list(titles)


def test_an_unknown_name_is_answered_with_the_closest_ones() -> None:
    with pytest.raises(ManualBPError, match="three-layer"):
        get("three-layers")
    with pytest.raises(ManualBPError, match="choose one of three-layer, kernel-gradient"):
        get("?")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_quantity_has_a_symbol_and_an_equation_that_mathml_can_show(name: str) -> None:
    for quantity in get(name).quantities():
        assert quantity.symbol, quantity.name
        assert quantity.equation is not None, quantity.name
        assert quantity.equation.text, quantity.name
        assert quantity.equation.source, quantity.name
        assert "${" not in quantity.equation.text + quantity.equation.latex, quantity.name
        mathml = convert(quantity.equation.latex)
        assert "\\" not in mathml, (quantity.name, quantity.equation.latex)  # a command it does not know stays as it is
        assert "∂" not in quantity.equation.latex, quantity.name


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_network_runs_and_keeps_its_precision(name: str, dtype: str) -> None:
    network = get(name)
    example = probe(network, "batch", dtype=dtype)
    run = network.run(example.params, example.x, example.y)
    assert list(run.trace) == [quantity.name for quantity in network.quantities()]
    assert run.mutations == ()
    for quantity, array in run.trace.items():
        assert np.isfinite(array).all(), quantity
        assert array.dtype == dtype or array.dtype.kind == "i", quantity


@pytest.mark.parametrize("name", SMALL)
def test_every_gradient_is_the_derivative_of_the_loss(name: str) -> None:
    """The elements with the largest gradients, and some at random, of every value and parameter."""
    network, rng = get(name), np.random.default_rng(0)
    example = probe(network, "seed-1")
    trace = network.run(example.params, example.x, example.y).trace
    for quantity in [n.removesuffix(GRAD) for n in trace if n.endswith(GRAD)]:
        gradient = trace[quantity + GRAD]
        largest = np.argsort(np.abs(gradient), axis=None)[-3:]
        for flat in {*largest.tolist(), *rng.integers(gradient.size, size=3).tolist()}:
            step = np.zeros(gradient.size)
            step[flat] = 1
            both = slopes(network, example, trace, quantity, step.reshape(gradient.shape))
            close(both, gradient.flat[flat], float(trace["loss"]), f"{quantity} at {flat}")


@pytest.mark.parametrize("name", LARGE)
def test_the_gradients_of_large_networks_are_derivatives_along_random_directions(name: str) -> None:
    network, rng = get(name), np.random.default_rng(0)
    example = probe(network, "seed-1")
    trace = network.run(example.params, example.x, example.y).trace
    first = next(iter(network.parameter_shapes()))
    for quantity in (INPUT, first, network.nodes[len(network.nodes) // 2].name):
        gradient = trace[quantity + GRAD]
        # along the gradient, half of it: a direction at random is nearly at right angles to it
        direction = gradient * rng.random(gradient.shape) / np.linalg.norm(gradient)
        both = slopes(network, example, trace, quantity, direction)
        close(both, float(np.sum(gradient * direction)), float(trace["loss"]), quantity)


def slopes(
    network: Network, example: Probe, trace: dict[str, Array], quantity: str, direction: Array
) -> tuple[float, float]:
    """Slope of the loss before and behind, when one quantity moves along a direction, everything before it fixed."""
    down, up = (loss(network, example, {quantity: trace[quantity] + h * direction}) for h in (-H, H))
    here = float(trace["loss"])
    return (here - down) / H, (up - here) / H


def loss(network: Network, example: Probe, moved: dict[str, Array]) -> float:
    values = {INPUT: moved.get(INPUT, example.x)}
    for node in network.nodes:
        names = (*node.layer.parameter_shapes(), *node.layer.buffer_shapes())
        own = {p: moved.get(f"{node.name}.{p}", example.params[f"{node.name}.{p}"]) for p in names}
        output, _ = node.layer.forward(own, *(values[name] for name in node.inputs))
        values[node.name] = moved.get(node.name, output)
    return float(network.loss.forward(values[network.output], example.y)[0])


def close(both: tuple[float, float], gradient: float, size: float, where: str) -> None:
    """The gradient is the derivative; at a kink, where the slopes differ, it lies between them."""
    before, behind = sorted(both)
    if behind - before > 1e-3 * max(abs(before), abs(behind), 1e-4):
        assert before - 1e-6 <= gradient <= behind + 1e-6, (where, both, gradient)
        return
    central = (before + behind) / 2
    assert abs(central - gradient) <= 1e-6 * abs(gradient) + 1e-8 * max(1.0, abs(size)), (where, central, gradient)


def test_the_published_sizes() -> None:
    def count(name: str) -> int:
        return sum(int(np.prod(shape)) for shape in get(name).parameter_shapes().values())

    assert count("three-layer") == 20
    assert count("kernel-gradient") == 10
    assert count("lenet") == 61_706
    assert count("vgg11") == 9_225_610


def test_describe_keeps_what_a_network_says_and_fills_in_the_rest() -> None:
    seed = get("three-layer")
    again = describe(seed)
    assert again.equations == seed.equations
    bare = chain("bare", {"fc_1": nn.Linear(2, 1), "a2": nn.Sigmoid()}, nn.BCELoss(), (2,))
    named = {quantity.name: quantity for quantity in describe(bare).quantities()}
    assert named["fc_1.weight.grad"].symbol == "∂L/∂w_fc_1"
    assert named["a2"].symbol == "a⁽²⁾"
    assert named["fc_1.grad"].equation is not None
    assert named["fc_1.grad"].equation.text == "∂L/∂fc_1 = ∂L/∂a⁽²⁾ · a⁽²⁾ (1 − a⁽²⁾)"


def test_a_gradient_with_several_readers_is_written_as_their_sum() -> None:
    equation = get("design-residual").equations["relu1.grad"]
    assert equation.text.startswith("the sum of: ")
    assert equation.text.count(";  ") == 2
    assert "multivariate chain rule" in equation.source


def test_a_layer_that_is_not_known_gets_the_chain_rule() -> None:
    class Strange(nn.Layer):
        pass

    network = describe(chain("odd", {"s": Strange()}, nn.MSELoss(), (2,)))
    assert network.equations["s"].text == "s = Strange(x)"
    assert network.equations["x.grad"].text == "∂L/∂x = (∂s/∂x)ᵀ ∂L/∂s"


@pytest.mark.parametrize(
    ("symbol", "written"),
    [
        ("a⁽¹⁾", "a^{(1)}"),
        ("a⁽ᶜ²⁾", "a^{(c2)}"),
        ("∂L/∂a⁽¹⁾", r"\frac{\partial L}{\partial a^{(1)}}"),
        ("w_conv1", r"w^{\mathrm{conv1}}"),
        ("δ⁽¹⁾", r"\delta^{(1)}"),
        (r"evil}_{\input{x}", r"\mathrm{evil\_inputx}"),
    ],
)
def test_latex_of_a_symbol(symbol: str, written: str) -> None:
    assert latex(symbol) == written


@pytest.mark.parametrize("turn", [from_nhwc, to_nhwc])
def test_images_are_turned_only_if_they_have_four_axes(turn: Callable[[Array], Array]) -> None:
    with pytest.raises(ManualBPError, match=r"shape \(8, 8\)"):
        turn(np.zeros((8, 8)))


def test_channels_last_and_back() -> None:
    images = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    inside = from_nhwc(images)
    assert inside.shape == (2, 5, 3, 4)
    assert inside[1, 4, 2, 3] == images[1, 2, 3, 4]
    assert inside.flags.c_contiguous
    np.testing.assert_array_equal(to_nhwc(inside), images)
