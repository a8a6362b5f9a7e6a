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


def walk(root: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Every place of the tree, the root first; a node that stands in two places comes twice."""
    yield path, root
    for i, arg in enumerate(root.args):
        yield from walk(arg, (*path, i))


def put(root: Node, path: Path, new: Node) -> Node:
    """The tree with what stands in one place exchanged."""
    if not path:
        return new
    i = path[0]
    args = tuple(put(a, path[1:], new) if j == i else a for j, a in enumerate(root.args))
    return replace(root, args=args)


def exchange(root: Node, old: Node, new: Node) -> Node:
    """The tree with a node exchanged wherever it stands."""
    if root is old:
        return new
    args = tuple(exchange(a, old, new) for a in root.args)
    return root if all(a is b for a, b in zip(args, root.args, strict=True)) else replace(root, args=args)


def leaves(root: Node) -> dict[str, Node]:
    """The operands by name."""
    return {n.options["name"]: n for _, n in walk(root) if n.op == "operand"}
