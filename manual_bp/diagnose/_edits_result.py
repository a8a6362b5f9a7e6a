"""Edits of what comes out of a formula."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from manual_bp.trace import GRAD

from ._edit import Edit
from ._edits_array import Site, array_edits, function_edits
from ._edits_structure import clips
from ._factor import off_by
from ._node import mul, node, operand, scaled
from ._setting import Setting, related


def _is_term(s: Setting, other: str) -> bool:
    """Whether the quantity may be a sum with this term: what one of its readers hands back, or what its step reads."""
    base = s.quantity.removesuffix(GRAD)
    steps = [step for name in s.graph.makers(s.quantity) if (step := s.graph.step(name)) is not None]
    if not s.quantity.endswith(GRAD):
        return any(other in step.inputs for step in steps)
    return len(steps) > 1 and any(other == step.name + GRAD and base in step.inputs for step in steps)


def result_edits(s: Setting) -> Iterator[Edit]:
    """Edits of what comes out."""
    site = Site(s.root, s.shape_of(s.root), s.kind_of(s.quantity), result=True)
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
                    cost=1.5 if related(s, other) else 1.9,
                )
                identifier, text = off_by(s, other, 1.0)
                yield Edit(
                    identifier=identifier,
                    name=text,
                    tree=node("add", s.root, operand(other)),
                    cost=2.3,
                )
                identifier, text = off_by(s, other, -1.0)
                if _is_term(s, other):
                    identifier = "branch-missing" if gradient else "term-missing"
                    text = f"the term {other} is missing from {s.quantity}"
                yield Edit(
                    identifier=identifier,
                    name=text,
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
