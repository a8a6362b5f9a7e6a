"""The parameters of recurrent layers: one array for all gates or one a gate, for x and h together or apart."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import numpy as np

from manual_bp.layer_objects._parameters import Wiring, places_of
from manual_bp.layer_objects._paths import read

_INPUT = (
    "weight_ih",
    "W_ih",
    "Wih",
    "Wxh",
    "W_xh",
    "Wx",
    "W_x",
    "Wax",
    "W_ax",
    "U",
    "kernel",
    "weights_ih",
    "w_ih",
    "W_in",
)
_STATE = (
    "weight_hh", "W_hh", "Whh", "Wh", "W_h", "Waa", "W_aa", "W_rec", "recurrent_kernel", "weights_hh", "w_hh", "V", "W",
)  # fmt: skip
_BOTH = ("W", "weights", "weight", "Wa", "kernel")
_BIAS = ("bias_ih", "b_ih", "bih", "bx", "b_x", "b", "bias", "bh", "b_h", "ba", "b_a", "biases", "B")
_SECOND = ("bias_hh", "b_hh", "bhh", "ba", "b_a", "bh", "b_h")

#: torch's order of an LSTM's gates: input, forget, cell, output; and what each may be called.
_GATES = (("i", "u"), ("f",), ("g", "c", "a"), ("o",))


def recurrent(owner: Any, leaves: Mapping[str, tuple[int, ...]]) -> list[Wiring]:
    """Ways in which an object may hold the parameters of an nn.RNN or nn.LSTM of one layer."""
    (rows, inputs), (_, hidden) = leaves["weight_ih_l0"], leaves["weight_hh_l0"]
    gates = rows // hidden
    if gates not in (1, 4):
        return []  # a GRU's gates differ in their very formula
    separate = [_one_array_a_gate(owner, inputs, hidden)] if gates == 4 else []
    ways = [*_arrays(owner, inputs, hidden, gates), *(w for w in separate if w)]
    return [_with_biases(way, leaves) for way in ways]


def _with_biases(way: Wiring, leaves: Mapping[str, tuple[int, ...]]) -> Wiring:
    return {leaf: way.get(leaf, ()) for leaf in leaves}


def _first(owner: Any, words: tuple[str, ...], shapes: tuple[tuple[int, ...], ...], but: tuple[str, ...] = ()) -> str:
    """The first path with an array of one of these shapes, ones aside."""
    wanted = [tuple(n for n in shape if n > 1) for shape in shapes]
    for path, value in places_of(owner, words, None):
        if isinstance(value, np.ndarray) and tuple(n for n in value.shape if n > 1) in wanted and path not in but:
            return path
    return ""


def _arrays(owner: Any, inputs: int, hidden: int, gates: int) -> list[Wiring]:
    """All gates in one array: separate ones for x and h, or one for both."""
    rows = gates * hidden
    own, state = (_first(owner, _INPUT, ((rows, inputs), (inputs, rows))), "")
    if own:
        state = _first(owner, _STATE, ((rows, hidden), (hidden, rows)), (own,))
    bias = _first(owner, _BIAS, ((rows,),))
    second = _first(owner, _SECOND, ((rows,),), (bias,)) if bias else ""
    found: list[Wiring] = []
    if own and state:
        for axis in _axes(owner, own, rows):
            for other in _axes(owner, state, rows):
                for blocks in _orders(gates, hidden):
                    found.append(
                        _wire(_cut(own, axis, blocks), _cut(state, other, blocks), bias, second, blocks, owner)
                    )
        return found
    both = _first(owner, _BOTH, ((rows, inputs + hidden), (inputs + hidden, rows)))
    for axis in _axes(owner, both, rows) if both else ():
        for blocks in _orders(gates, hidden):
            for of_x, of_h in ((f"{hidden}:", f":{hidden}"), (f":{inputs}", f"{inputs}:")):
                x, h = (_cut(both, axis, blocks, across) for across in (of_x, of_h))
                found.append(_wire(x, h, bias, second, blocks, owner))
    return found


def _wire(
    x: tuple[str, ...], h: tuple[str, ...], bias: str, second: str, blocks: tuple[str, ...], owner: Any
) -> Wiring:
    def cut(path: str) -> tuple[str, ...]:
        if not path:
            return ()
        shape = read(owner, path).shape
        return _cut(path, int(np.argmax(shape)), blocks, ndim=len(shape))

    return {"weight_ih_l0": x, "weight_hh_l0": h, "bias_ih_l0": cut(bias), "bias_hh_l0": cut(second)}


def _axes(owner: Any, path: str, rows: int) -> list[int]:
    return [axis for axis, n in enumerate(read(owner, path).shape) if n == rows]


def _orders(gates: int, hidden: int) -> list[tuple[str, ...]]:
    """For each of torch's gates the rows where it stands; all orders, the usual ones first."""
    if gates == 1:
        return [("",)]
    usual = [(0, 1, 2, 3), (0, 1, 3, 2), (2, 0, 1, 3), (1, 0, 2, 3)]
    orders = dict.fromkeys([*usual, *permutations(range(4))])
    return [tuple(f"{k * hidden}:{(k + 1) * hidden}" for k in order) for order in orders]


def _cut(path: str, axis: int, blocks: tuple[str, ...], across: str = "", ndim: int = 2) -> tuple[str, ...]:
    pieces = []
    for block in blocks:
        if not block and not across:
            pieces.append(path)
            continue
        slices = [":"] * ndim
        slices[axis] = block or ":"
        if across:
            slices[1 - axis] = across
        pieces.append(f"{path}[{', '.join(slices)}]")
    return tuple(pieces)


def _one_array_a_gate(owner: Any, inputs: int, hidden: int) -> Wiring | None:
    """Wf, Wi, Wc, Wo, with Uf ... for the state or with both in one."""
    forms_x = ("W{}x", "Wx{}", "W_x{}", "W_{}x", "W{}", "W_{}", "w_{}", "U{}", "U_{}")
    forms_h = ("W{}h", "Wh{}", "W_h{}", "W_{}h", "U{}", "U_{}", "R{}", "W{}", "W_{}", "w_{}", "V{}")
    x = _gates(owner, forms_x, ((hidden, inputs), (inputs, hidden)), ())
    h = _gates(owner, forms_h, ((hidden, hidden),), x or ()) if x else None
    bias = _gates(owner, ("b{}", "b_{}", "B{}", "bias_{}", "bias{}"), ((hidden,),), ()) or ()
    if x and h:
        return {"weight_ih_l0": x, "weight_hh_l0": h, "bias_ih_l0": bias}
    both = _gates(owner, ("W{}", "W_{}", "w_{}", "w{}"), ((hidden, inputs + hidden), (inputs + hidden, hidden)), ())
    if not both:
        return None
    axis = _axes(owner, both[0], hidden)[0]
    of_x, of_h = (
        tuple(p for path in both for p in _cut(path, axis, ("",), cut)) for cut in (f"{hidden}:", f":{hidden}")
    )
    return {"weight_ih_l0": of_x, "weight_hh_l0": of_h, "bias_ih_l0": bias}


def _gates(
    owner: Any, forms: tuple[str, ...], shapes: tuple[tuple[int, ...], ...], but: tuple[str, ...]
) -> tuple[str, ...] | None:
    for form in forms:
        paths = tuple(_first(owner, tuple(form.format(g) for g in gate), shapes, but) for gate in _GATES)
        if all(paths):
            return paths
    return None
