"""A formula as a tree, so that it can be edited: what an operation is defined by, with a name for each part.

A node is an operation on other nodes. Leaves are operands (quantities of the trace, by name) and constants. Nothing
here computes; `manual_bp.diagnose._evaluate` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Path = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One operation of a formula.

    Attributes
    ----------
    op
        Name of the operation in `manual_bp.diagnose._ops`.
    args
        What it is applied to.
    options
        Numbers and words that are part of the definition: axes, stride, a constant's value.
    says
        What it is called in a sentence ("the kernel"); empty if it has no name of its own.

    Nodes are compared by identity: one that stands in two places is one quantity that is used twice.
    """

    op: str
    args: tuple[Node, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    says: str = ""

    def but(self, **options: Any) -> Node:
        """The same with other options."""
        return replace(self, options={**self.options, **options})

    def with_args(self, args: tuple[Node, ...]) -> Node:
        """The same operation applied to something else."""
        return Node(self.op, args, self.options, self.says)

    def with_arg(self, i: int, new: Node) -> Node:
        """The same with one argument exchanged."""
        return self.with_args((*self.args[:i], new, *self.args[i + 1 :]))

    def called(self, says: str) -> Node:
        """The same under another name."""
        return replace(self, says=says)


def node(op: str, *args: Node, says: str = "", **options: Any) -> Node:
    """A node, written like a call."""
    return Node(op, args, options, says)


def operand(name: str, says: str = "") -> Node:
    """A quantity of the trace."""
    return Node("operand", (), {"name": name}, says or name)


def const(value: float, says: str = "") -> Node:
    """A number that the definition holds."""
    return Node("const", (), {"value": value}, says or f"{value:g}")


def add(*terms: Node, says: str = "") -> Node:
    """The sum of the terms."""
    return Node("add", terms, {}, says)


def mul(*factors: Node, says: str = "") -> Node:
    """The product of the factors, broadcast."""
    return Node("mul", factors, {}, says)


def neg(a: Node) -> Node:
    """-a."""
    return Node("scale", (a,), {"by": -1.0}, f"−{a.says}" if a.says else "")


def scaled(a: Node, by: float, says: str = "") -> Node:
    """A number times a."""
    return Node("scale", (a,), {"by": float(by)}, says)


def fn(name: str, a: Node, says: str = "") -> Node:
    """An elementwise function by its name."""
    return Node("fn", (a,), {"name": name}, says)


def one_minus(a: Node) -> Node:
    """1 - a."""
    return add(const(1.0), neg(a), says=f"1 − {a.says}" if a.says else "")


def inverse_count(a: Node, axes: tuple[int, ...] | None, says: str) -> Node:
    """1 / (number of elements along the axes), of all of them if None."""
    return Node("inverse_count", (a,), {"axes": axes}, says)


def total(a: Node, axes: tuple[int, ...] | None, *, keep: bool = False, says: str = "") -> Node:
    """Sum over the axes."""
    return Node("sum", (a,), {"axes": axes, "keep": keep}, says)


#: Arguments of which only the shape counts: an edit there changes nothing, or what it changes is not meant.
SHAPE_ONLY: Mapping[str, tuple[int, ...]] = {
    "inverse_count": (0,), "inverse_count_minus": (0,), "count": (0,), "like": (1,), "column": (1,),
    "like_classes": (0,), "one_hot": (1,), "conv_dx": (2,), "conv_dw": (2,), "average_dx": (1,), "unpad": (1,),
}  # fmt: skip  # a table


def walk(root: Node, path: Path = (), *, shapes: bool = True) -> Iterator[tuple[Path, Node]]:
    """Every place of the tree, the root first; a node that stands in two places comes twice.

    ``shapes`` includes the places where only a shape is read.
    """
    yield path, root
    skipped = () if shapes else SHAPE_ONLY.get(root.op, ())
    for i, arg in enumerate(root.args):
        if i not in skipped:
            yield from walk(arg, (*path, i), shapes=shapes)


def put(root: Node, path: Path, new: Node) -> Node:
    """The tree with what stands in one place exchanged."""
    if not path:
        return new
    i = path[0]
    return root.with_arg(i, put(root.args[i], path[1:], new))


def exchange(root: Node, old: Node, new: Node) -> Node:
    """The tree with a node exchanged wherever it stands; what stands in two places still is one node."""
    return rebuilt(root, {old: new})


def rebuilt(root: Node, done: dict[Node, Node]) -> Node:
    """The tree with some nodes exchanged for others; ``done`` is filled with all that was looked at."""
    found = done.get(root)
    if found is None:
        found = root
        if root.args:
            args = tuple([rebuilt(a, done) for a in root.args])
            if args != root.args:  # nodes are compared by identity
                found = root.with_args(args)
        done[root] = found
    return found


def leaves(root: Node) -> dict[str, Node]:
    """The operands by name."""
    return {n.options["name"]: n for _, n in walk(root) if n.op == "operand"}
