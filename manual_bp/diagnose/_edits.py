"""All single edits of a quantity's definition, the plausible ones first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from manual_bp import nn
from manual_bp.network import INPUT, TARGET
from manual_bp.trace import GRAD, NEW

from ._edit import Edit, Kind, axis_word
from ._edits_array import Site, array_edits, function_edits
from ._edits_formula import part_edits
from ._edits_layer import layer_edits
from ._edits_structure import clips, commuted, every_logarithm, extra_factors, other_axes, slopes
from ._formulas_elementwise import forward_of, slope_of
from ._graph import Context, Graph
from ._node import Node, exchange, leaves, mul, node, operand, put, scaled, walk

Shape = tuple[int, ...]

#: A part that stands in several places is edited by itself in so many of them.
PLACES = 4


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the generator knows: the graph, the quantity, its formula, and shapes on one probe.

    ``shape_of`` gives the shape of any node of the formula; ``shapes`` that of every quantity of the trace, by name;
    ``target`` the shape that was reported.
    """

    graph: Graph
    quantity: str
    root: Node
    shapes: Mapping[str, Shape]
    shape_of: Callable[[Node], Shape]
    target: Shape
    dtype: str
    known_formula: bool = True
    context: Context = field(default_factory=Context)

    def earlier(self, name: str) -> bool:
        """Whether a quantity is known when this one is computed, or is an updated parameter."""
        known = self.graph.reported
        kept_back = known is not None and name not in known and name not in (INPUT, TARGET)
        if kept_back and name not in self.graph.parameters():
            return False  # the reference made it up from what was reported
        own, other = self.order.get(self.quantity, len(self.order)), self.order.get(name)
        return name.endswith(NEW) or other is None or other < own

    @cached_property
    def operations(self) -> frozenset[str]:
        """Names of the operations in the formula."""
        return frozenset(n.op for _, n in walk(self.root))

    @cached_property
    def order(self) -> dict[str, int]:
        """Quantities in execution order."""
        return {name: i for i, name in enumerate(self.shapes) if not name.startswith("before:")}


def edits(s: Setting) -> Iterator[Edit]:
    """Every hypothesis of one edit."""
    yield from _whole(s)
    yield from _parts(s)
    yield from _operands(s)
    yield from _result(s)
    yield from _layers(s)
    yield from _context(s)


def _places(root: Node) -> list[tuple[Node, list[tuple[int, ...]]]]:
    """Every node of the tree once, with all the places where its numbers are read."""
    found: dict[Node, list[tuple[int, ...]]] = {}
    for path, n in walk(root, shapes=False):
        found.setdefault(n, []).append(path)
    return list(found.items())


def _variants(root: Node, old: Node, places: list[tuple[int, ...]], new: Node) -> Iterator[tuple[Node, str, float]]:
    """The edit made everywhere, and (dearer) in one place only."""
    yield exchange(root, old, new), "", 0.0
    if len(places) > 1:
        # in a formula that repeats itself the outermost places are those that somebody writes down by themselves
        for i, path in enumerate(sorted(places, key=len)[:PLACES]):
            yield put(root, path, new), f" (only in {_place(root, path)})", 0.3 + 0.01 * i


def _place(root: Node, path: tuple[int, ...]) -> str:
    """What is nearest around a place and has a name."""
    found, here = "one of its places", root
    for i in path:
        if here.says and here.op != "scale":
            found = here.says
        here = here.args[i]
    return found


def _parts(s: Setting) -> Iterator[Edit]:
    for part, places in _places(s.root):
        for identifier, name, cost, new in (*part_edits(part, s.shape_of), *commuted(part, s.shape_of)):
            for tree, where, more in _variants(s.root, part, places, new):
                yield Edit(identifier=identifier, name=name + where, tree=tree, cost=cost + more)
        yield from _terms_per(s, part, places)
        if part.args and part is not s.root and part.op != "scale" and np.prod(s.shape_of(part)) > 1:
            yield from _inner(s, part, places)


def _context(s: Setting) -> Iterator[Edit]:
    """What the surroundings suggest: another form of the formula, another derivative, a neighbour's factor."""
    for identifier, name, cost, tree in other_axes(s.root, s.shape_of):
        yield Edit(identifier=identifier, name=name, tree=tree, cost=cost)
    yield from _next_derivative(s)
    for identifier, name, cost, tree in s.context.variants:
        yield Edit(identifier=identifier, name=name, tree=tree, cost=cost)
    for note, form in s.context.forms:
        for edit in (*_parts(replace(s, root=form)), *_halfway(s, form)):
            yield replace(edit, name=edit.name + note, cost=edit.cost + (0.1 if note else 0.0))
    yield from _halfway(s, s.root)
    for identifier, name, cost, tree in every_logarithm(s.root):
        yield Edit(identifier=identifier, name=name, tree=tree, cost=cost)
    if s.context.slope is not None:
        for identifier, words, cost, tree in slopes(*s.context.slope):
            yield Edit(identifier=identifier, name=f"the upstream gradient is {words}", tree=tree, cost=cost)
    makers = s.graph.makers(s.quantity)
    part = s.graph.part(makers[0]) if len(makers) == 1 else None
    for identifier, name, cost, tree in extra_factors(s.root, part, list(s.context.siblings), s.shape_of):
        yield Edit(identifier=identifier, name=name, tree=tree, cost=cost)


def _halfway(s: Setting, root: Node) -> Iterator[Edit]:
    """What stands inside of the formula, reported as the whole."""
    for n, _ in _places(root):
        if n is not root and n.args and n.op != "scale" and n.says and s.shape_of(n) == s.target:
            name = f"{s.quantity} is {n.says} alone: what is to be done with it afterwards is missing"
            yield Edit(identifier="factor-missing", name=name, tree=n, cost=1.5)


def _next_derivative(s: Setting) -> Iterator[Edit]:
    """The derivative of the step that made x, multiplied into ∂L/∂x already."""
    base = s.quantity.removesuffix(GRAD)
    step = s.graph.step(base)
    if (
        base == s.quantity
        or step is None
        or len(step.inputs) != 1
        or s.shapes.get(step.inputs[0]) != s.shapes.get(base)
    ):
        return
    x = operand(step.inputs[0])
    if forward_of(step.layer, x) is not None:
        what = "mask" if isinstance(step.layer, nn.ReLU) else "derivative"
        name = f"{s.quantity} is multiplied by the {what} of {base} already, which is for the next step back to do"
        tree = slope_of(step.layer, x, s.root)
        yield Edit(identifier="factor-extra", name=name, tree=tree, cost=1.3)


def _terms_per(s: Setting, part: Node, places: list[tuple[int, ...]]) -> Iterator[Edit]:
    """A term that is added once for each element along an axis of an operand."""
    for i, term in enumerate(part.args if part.op == "add" and len(part.args) > 1 else ()):
        for name, leaf in leaves(s.root).items():
            for axis, n in enumerate(s.shape_of(leaf)):
                if n > 1:
                    word = axis_word(_kind(s, name), len(s.shape_of(leaf)), axis)
                    more = mul(term, node("count", leaf, axes=(axis,)))
                    new = replace(part, args=(*part.args[:i], more, *part.args[i + 1 :]))
                    text = f"{term.says or 'a term'} is added once for each {word} of {name}"
                    yield Edit(identifier="term-doubled", name=text, tree=put(s.root, places[0], new), cost=1.7)


def _inner(s: Setting, part: Node, places: list[tuple[int, ...]]) -> Iterator[Edit]:
    """Edits of an intermediate result."""
    says = part.says or part.op
    site = Site(part, s.shape_of(part), "activation")
    kept = clips(part) if part.op in ("fn", "softmax") else ()
    for identifier, words, cost, new in (*array_edits(site, s.dtype), *function_edits(site), *kept):
        yield Edit(identifier=identifier, name=f"{says} {words}", tree=exchange(s.root, part, new), cost=cost + 0.6)
    yield from _swaps(s, part, places, says)


def _operands(s: Setting) -> Iterator[Edit]:
    for leaf, places in _places(s.root):
        if leaf.op != "operand" or leaf.options["name"].startswith("right:"):
            continue
        name = leaf.options["name"]
        shape = s.shape_of(leaf)
        site = Site(leaf, shape, _kind(s, name))
        linear = s.operations <= _LINEAR  # scaling an operand scales the result: it need not be tried for each
        for identifier, words, cost, new in (*array_edits(site, s.dtype), *function_edits(site), *clips(leaf)):
            if linear and identifier == "ones" and shape == ():
                continue
            identifier, text = _well_known(s, leaf, identifier, f"{leaf.says} {words}")
            for tree, where, more in _variants(s.root, leaf, places, new):
                yield Edit(identifier=identifier, name=text + where, tree=tree, cost=cost + more)
        if not linear:
            for by in (-1.0, 2.0, 0.5):
                text = f"{leaf.says} {'has the wrong sign' if by < 0 else f'is multiplied by {by:g}'}"
                for tree, where, more in _variants(s.root, leaf, places, scaled(leaf, by)):
                    yield Edit(
                        identifier="sign-inside" if by < 0 else "constant-factor-inside",
                        name=text + where,
                        tree=tree,
                        cost=2.2 + more,
                    )
        yield from _swaps(s, leaf, places, leaf.says)


def _well_known(s: Setting, leaf: Node, identifier: str, text: str) -> tuple[str, str]:
    """Mistakes that have a name of their own."""
    weight = leaf.says.startswith(("the kernel", "the weight"))
    if weight and {"conv_dx", "conv"} & s.operations:
        backward = "conv_dx" in s.operations
        words = {
            "rotated": ("kernel-not-rotated", f"{leaf.says} is not rotated by 180° in the backward pass")
            if backward
            else ("kernel-rotated", f"{leaf.says} is rotated by 180°: a true convolution, where the layer correlates"),
            "flipped": ("kernel-flipped", text),
            "turned": ("kernel-turned", text),
            "transposed": ("kernel-transposed", text),
        }
        return words.get(identifier, (identifier, text))
    if leaf.options["name"] == TARGET and identifier == "complement":
        return "target-inverted", f"yes and no are exchanged: {leaf.says} is replaced by one minus itself"
    if weight and identifier == "transposed":
        return "weight-transposed", text
    if "upstream" in leaf.says:
        names = {"rotated": "upstream-rotated", "ones": "upstream-ignored", "squared": "upstream-doubled"}
        return names.get(identifier, identifier), text
    return identifier, text


_LINEAR = frozenset(
    [
        "mul",
        "matmul",
        "conv",
        "conv_dx",
        "conv_dw",
        "sum",
        "operand",
        "average_dx",
        "average",
        "like",
        "merge",
        "inverse_count",
        "pad",
        "unpad",
        "const",
    ]
)


def _swaps(s: Setting, part: Node, places: list[tuple[int, ...]], says: str) -> Iterator[Edit]:
    """Another quantity of the trace in its place, an updated one, or that of the pass before."""
    shape, own = s.shape_of(part), part.options.get("name", "")
    for other, found in s.shapes.items():
        if (
            found != shape
            or other in (own, s.quantity)
            or other.startswith(("right:", "before:"))
            or not s.earlier(other)
        ):
            continue
        identifier = "operand-updated-early" if other == own + NEW else "operand-swapped"
        far = 0.1 if _related(s, other) else 0.4
        for tree, where, more in _variants(s.root, part, places, operand(other)):
            yield Edit(
                identifier=identifier, name=f"{other} in place of {says}{where}", tree=tree, cost=1.3 + far + more
            )
    if own and s.shapes.get(f"before:{own}") == shape:
        for tree, where, more in _variants(s.root, part, places, operand(f"before:{own}")):
            yield Edit(
                identifier="stale-cache",
                name=f"{says} is still that of the pass before{where}",
                tree=tree,
                cost=1.4 + more,
            )


def _related(s: Setting, other: str) -> bool:
    """Whether a quantity belongs to the steps that are concerned."""
    base = other.removesuffix(GRAD).removesuffix(NEW)
    makers = s.graph.makers(s.quantity)
    near = {name for m in makers for name in (m, *(s.graph.step(m).inputs if s.graph.step(m) else ()))}  # type: ignore[union-attr]  # asked just before
    return base in near or base.rpartition(".")[0] in near or base == INPUT


def _kind(s: Setting, name: str) -> Kind:
    base = name.removesuffix(GRAD).removesuffix(NEW)
    return "parameter" if base in s.graph.parameters() else "activation"


def _result(s: Setting) -> Iterator[Edit]:
    """Edits of what comes out."""
    site = Site(s.root, s.shape_of(s.root), _kind(s, s.quantity), result=True)
    gradient = s.quantity.endswith(GRAD)
    for identifier, words, cost, new in (*array_edits(site, s.dtype), *function_edits(site), *clips(s.root)):
        named = {"rotated": "gradient-rotated", "transposed": "gradient-transposed"} if gradient else {}
        if identifier == "ones":
            continue
        text = f"{s.quantity} {words}"
        yield Edit(identifier=named.get(identifier, identifier), name=text, tree=new, cost=cost + 0.4)
    if s.target == site.shape:
        for other, shape in s.shapes.items():
            if (
                shape == site.shape
                and other != s.quantity
                and not other.startswith(("right:", "before:"))
                and s.earlier(other)
            ):
                text = (
                    f"{s.quantity} is {other}, passed on unchanged"
                    if gradient
                    else f"{s.quantity} is a copy of {other}"
                )
                yield Edit(
                    identifier="operand-swapped",
                    name=text,
                    tree=operand(other),
                    cost=1.5 if _related(s, other) else 1.9,
                )
                yield Edit(
                    identifier="term-extra",
                    name=f"{other} is added to {s.quantity}",
                    tree=node("add", s.root, operand(other)),
                    cost=2.3,
                )
                yield Edit(
                    identifier="term-extra",
                    name=f"{other} is subtracted from {s.quantity}",
                    tree=node("add", s.root, scaled(operand(other), -1.0)),
                    cost=2.4,
                )
                yield Edit(
                    identifier="operand-extra",
                    name=f"{s.quantity} is multiplied with {other}, which does not belong there",
                    tree=mul(s.root, operand(other)),
                    cost=2.2,
                )
                mask = node("greater", operand(other), than=0.0)
                yield Edit(
                    identifier="mask-extra",
                    name=f"{s.quantity} is masked by {other} > 0",
                    tree=mul(s.root, mask),
                    cost=2.1,
                )
        if s.shapes.get(f"before:{s.quantity}") == site.shape:
            yield Edit(
                identifier="stale-cache",
                name=f"{s.quantity} is still that of the pass before",
                tree=operand(f"before:{s.quantity}"),
                cost=2.3,
            )
            both = node("add", s.root, operand(f"before:{s.quantity}"))
            yield Edit(
                identifier="term-doubled",
                name=f"{s.quantity} is added to that of the pass before: it is never set to zero",
                tree=both,
                cost=1.4,
            )
    elif int(np.prod(s.target)) == int(np.prod(site.shape)):
        for order in itertools.permutations(range(site.ndim)):
            if tuple(site.shape[i] for i in order) == s.target and order != tuple(range(site.ndim)):
                yield Edit(
                    identifier="transposed",
                    name=f"{s.quantity} comes out transposed (axes {order})",
                    tree=node("permute", s.root, axes=order),
                    cost=1.0,
                )
        yield Edit(
            identifier="reshaped",
            name=f"{s.quantity} comes out in another shape",
            tree=node("reshape", s.root, shape=s.target),
            cost=1.2,
        )


def _whole(s: Setting) -> Iterator[Edit]:
    """Sign and simple factors of the whole."""
    yield Edit(identifier="sign-flipped", name=f"{s.quantity} has the wrong sign", tree=scaled(s.root, -1.0), cost=0.9)
    for by, words in ((2.0, "twice as large"), (0.5, "half as large")):
        yield Edit(identifier="constant-factor", name=f"{s.quantity} is {words}", tree=scaled(s.root, by), cost=1.2)


def _layers(s: Setting) -> Iterator[Edit]:
    for maker in s.graph.makers(s.quantity):
        part = s.graph.part(maker)
        if part is None:
            continue
        for identifier, name, cost, other in layer_edits(part):
            tree = s.graph.with_part(maker, other).formula(s.quantity, s.shapes)
            if tree is not None:
                yield Edit(identifier=identifier, name=name, tree=tree, cost=cost)
