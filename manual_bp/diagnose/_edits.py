"""All single edits of a quantity's definition, the plausible ones first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from manual_bp import nn
from manual_bp.network import TARGET
from manual_bp.trace import GRAD, NEW

from ._axes import axis_word
from ._case import SHARE
from ._edit import Edit
from ._edits_array import Site, array_edits, function_edits
from ._edits_formula import part_edits
from ._edits_layer import layer_edits
from ._edits_result import result_edits
from ._edits_structure import clips, commuted, every_logarithm, extra_factors, other_axes, slopes
from ._formulas_elementwise import forward_of, slope_of
from ._node import SHAPE_ONLY, Node, exchange, leaves, mul, node, operand, scaled, walk
from ._setting import Setting, related

#: How much dearer an edit of another form of the formula is than one of the formula itself.
FORM = 0.25

#: A part that is read by several others is edited for so many of them by itself.
PLACES = 4


def edits(s: Setting) -> Iterator[Edit]:
    """Every hypothesis of one edit."""
    yield from _whole(s)
    yield from _parts(s)
    yield from _operands(s)
    yield from result_edits(s)
    yield from _layers(s)
    yield from _context(s)


#: Each part of a formula, with those that read its numbers: another part, and which of its arguments.
Readers = Mapping[Node, list[tuple[Node, int]]]


def _readers(root: Node) -> Readers:
    """Every part of the formula once, the outer ones first."""
    found: dict[Node, list[tuple[Node, int]]] = {root: []}
    for _, n in walk(root, shapes=False):
        for i, arg in enumerate(n.args):
            if i not in SHAPE_ONLY.get(n.op, ()) and (n, i) not in found.setdefault(arg, []):
                found[arg].append((n, i))
    return found


def _variants(
    root: Node, old: Node, readers: Readers, new: Node, *, deep: bool = False
) -> Iterator[tuple[Node, str, float]]:
    """The edit made everywhere, and (dearer) for one reader only: of the part, or of the next one around it.

    ``deep``: also for one reader of such a reader.
    """
    yield exchange(root, old, new), "", 0.0
    for k, (reader, edited) in enumerate(_one_reader(old, new, readers)):
        yield exchange(root, reader, edited), f" (only in {_place(root, reader)})", 0.3 + 0.01 * k
        for around, again in _one_reader(reader, edited, readers) if deep else ():
            yield exchange(root, around, again), f" (only in {_place(root, around)})", 0.4 + 0.01 * k


def _one_reader(old: Node, new: Node, readers: Readers) -> Iterator[tuple[Node, Node]]:
    """Each reader as it was and with the edit, where the part, or the next one around it, has several."""
    while len(readers[old]) == 1:
        ((reader, i),) = readers[old]
        old, new = reader, reader.with_arg(i, new)
    for reader, i in readers[old][:PLACES]:
        yield reader, reader.with_arg(i, new)


def _place(root: Node, reader: Node) -> str:
    """A part by its name, or by that of the nearest one around it that has one."""
    if reader.says and reader.op != "scale":
        return reader.says
    around = next((n for _, n in walk(root) if reader in n.args), None)
    return _place(root, around) if around is not None else "one of its places"


def _parts(s: Setting) -> Iterator[Edit]:
    readers = _readers(s.root)
    for part in readers:
        if part.op == "const" and not s.known_formula:
            continue  # it only stands there to make a sum of what has no formula
        for identifier, name, cost, new in (*part_edits(part, s.shape_of, s.kind), *commuted(part, s.shape_of, s.kind)):
            for tree, where, more in _variants(s.root, part, readers, new, deep=cost <= 1.1):
                yield Edit(identifier=identifier, name=name + where, tree=tree, cost=cost + more)
        yield from _terms_per(s, part)
        if part.args and part is not s.root and part.op != "scale" and np.prod(s.shape_of(part)) > 1:
            yield from _inner(s, part, readers)


def _context(s: Setting) -> Iterator[Edit]:
    """What the surroundings suggest: another form of the formula, another derivative, a neighbour's factor."""
    for identifier, name, cost, tree in other_axes(s.root, s.shape_of, s.kind):
        yield Edit(identifier=identifier, name=name, tree=tree, cost=cost)
    yield from _next_derivative(s)
    for identifier, name, cost, tree in s.context.variants:
        yield Edit(identifier=identifier, name=name, tree=tree, cost=cost)
    for note, form in s.context.forms:
        for edit in (*_parts(replace(s, root=form)), *_halfway(s, form)):
            yield replace(edit, name=edit.name + note, cost=edit.cost + FORM)
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
    for n in _readers(root):
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


def _terms_per(s: Setting, part: Node) -> Iterator[Edit]:
    """A term that is added once for each element along an axis of an operand."""
    for i, term in enumerate(part.args if part.op == "add" and len(part.args) > 1 else ()):
        for name, leaf in leaves(s.root).items():
            called = s.quantity.removesuffix(GRAD) if name.startswith(SHARE) else name
            for axis, n in enumerate(s.shape_of(leaf)):
                if n > 1:
                    word = axis_word(s.kind_of(name), len(s.shape_of(leaf)), axis)
                    more = mul(term, node("count", leaf, axes=(axis,)))
                    new = part.with_arg(i, more)
                    text = f"{term.says or 'a term'} is added once for each {word} of {called}"
                    yield Edit(identifier="term-doubled", name=text, tree=exchange(s.root, part, new), cost=1.7)


def _inner(s: Setting, part: Node, readers: Readers) -> Iterator[Edit]:
    """Edits of an intermediate result."""
    says = part.says or part.op
    site = Site(part, s.shape_of(part), s.kind)
    kept = clips(part) if part.op in ("fn", "softmax") else ()
    for identifier, words, cost, new in (*array_edits(site, s.dtype), *function_edits(site), *kept):
        yield Edit(identifier=identifier, name=f"{says} {words}", tree=exchange(s.root, part, new), cost=cost + 0.6)
    yield from _swaps(s, part, readers, says)


def _operands(s: Setting) -> Iterator[Edit]:
    readers = _readers(s.root)
    for leaf in readers:
        if leaf.op != "operand" or leaf.options["name"].startswith("right:"):
            continue
        name = leaf.options["name"]
        shape = s.shape_of(leaf)
        site = Site(leaf, shape, s.kind_of(name))
        linear = s.operations <= _LINEAR  # scaling an operand scales the result: it need not be tried for each
        # a class is a whole number, of which nothing is kept above a small one
        kept = () if any(reader.op == "one_hot" for reader, _ in readers[leaf]) else clips(leaf)
        # a share is no operand that a function is applied to, but what became of one
        functions = () if name.startswith(SHARE) else (*function_edits(site), *kept)
        for identifier, words, cost, new in (*array_edits(site, s.dtype), *functions):
            if linear and identifier == "ones" and shape == ():
                continue
            identifier, text = _well_known(s, leaf, identifier, f"{leaf.says} {words}")
            for tree, where, more in _variants(s.root, leaf, readers, new):
                yield Edit(identifier=identifier, name=text + where, tree=tree, cost=cost + more)
        if not linear:
            for by in (-1.0, 2.0, 0.5):
                text = f"{leaf.says} {'has the wrong sign' if by < 0 else f'is multiplied by {by:g}'}"
                for tree, where, more in _variants(s.root, leaf, readers, scaled(leaf, by)):
                    yield Edit(
                        identifier="sign-inside" if by < 0 else "constant-factor-inside",
                        name=text + where,
                        tree=tree,
                        cost=2.2 + more,
                    )
        yield from _swaps(s, leaf, readers, leaf.says)


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


def _swaps(s: Setting, part: Node, readers: Readers, says: str) -> Iterator[Edit]:
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
        far = 0.1 if related(s, other) else 0.4
        for tree, where, more in _variants(s.root, part, readers, operand(other)):
            yield Edit(
                identifier=identifier, name=f"{other} in place of {says}{where}", tree=tree, cost=1.3 + far + more
            )
    if own and s.shapes.get(f"before:{own}") == shape:
        for tree, where, more in _variants(s.root, part, readers, operand(f"before:{own}")):
            yield Edit(
                identifier="stale-cache",
                name=f"{says} is still that of the pass before{where}",
                tree=tree,
                cost=1.4 + more,
            )


def _whole(s: Setting) -> Iterator[Edit]:
    """Sign and simple factors of the whole."""
    yield Edit(identifier="sign-flipped", name=f"{s.quantity} has the wrong sign", tree=scaled(s.root, -1.0), cost=0.9)
    for by, words in ((2.0, "twice as large"), (0.5, "half as large")):
        yield Edit(identifier="constant-factor", name=f"{s.quantity} is {words}", tree=scaled(s.root, by), cost=1.2)


def _layers(s: Setting) -> Iterator[Edit]:
    if not s.known_formula:
        return  # what its formula with another option gives says nothing where the formula itself is another
    for maker in s.graph.makers(s.quantity):
        part = s.graph.part(maker)
        if part is None:
            continue
        for identifier, name, cost, other in layer_edits(part):
            tree = s.graph.with_part(maker, other).formula(s.quantity, s.shapes)
            if tree is not None:
                yield Edit(identifier=identifier, name=name, tree=tree, cost=cost)
