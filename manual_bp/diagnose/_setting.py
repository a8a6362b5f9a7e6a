"""What the generators of edits know of one quantity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from manual_bp.network import INPUT, TARGET
from manual_bp.trace import GRAD, NEW

from ._axes import Kind, kind_at, kind_of_array
from ._case import SHARE
from ._graph import Context, Graph
from ._node import Node, walk

Shape = tuple[int, ...]


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

    def kind_of(self, name: str) -> Kind:
        """What the axes of a quantity mean."""
        if name.startswith(SHARE):
            name = self.quantity  # what a reader gives to it
        if name not in self._kinds:
            self._kinds[name] = kind_of_array(self.graph, self.shapes, name)
        return self._kinds[name]

    @cached_property
    def kind(self) -> Kind:
        """What the axes of the formula's parts mean."""
        return kind_at(self.graph, self.shapes, self.quantity)

    @cached_property
    def _kinds(self) -> dict[str, Kind]:
        return {}

    @cached_property
    def order(self) -> dict[str, int]:
        """Quantities in execution order."""
        return {name: i for i, name in enumerate(self.shapes) if not name.startswith("before:")}


def related(s: Setting, other: str) -> bool:
    """Whether a quantity belongs to the steps that are concerned."""
    base = other.removesuffix(GRAD).removesuffix(NEW)
    makers = s.graph.makers(s.quantity)
    near = {name for m in makers for name in (m, *(s.graph.step(m).inputs if s.graph.step(m) else ()))}  # type: ignore[union-attr]  # asked just before
    return base in near or base.rpartition(".")[0] in near or base == INPUT
