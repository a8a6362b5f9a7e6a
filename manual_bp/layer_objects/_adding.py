"""Gradients that are added to and never set anew: each pass is right by itself, and the second holds both."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

_CLEARS = re.compile(r"zero|reset|clear", re.IGNORECASE)


def keeps_adding(layer: Any, gradient: Any) -> bool:
    """Whether the layer adds to this array, which it holds, and has nothing that sets it to zero again."""
    return any(
        held is gradient
        for name in _added_to(layer.__class__)
        for own in [getattr(layer, name, None)]
        for held in (own.values() if isinstance(own, Mapping) else own if isinstance(own, (list, tuple)) else (own,))
    )


@cache
def _added_to(kind: type) -> frozenset[str]:
    """Attributes that are added to, and set anew nowhere but where the object is made; none if that cannot be told."""
    if any(_CLEARS.search(name) for name in dir(kind)):
        return frozenset()
    try:
        trees = [ast.parse(textwrap.dedent(inspect.getsource(function))) for function in _each_pass(kind)]
    except (OSError, TypeError, SyntaxError):
        return frozenset()
    nodes = [node for tree in trees for node in ast.walk(tree)]
    if any(isinstance(node, ast.Name) and node.id == "super" for node in nodes):
        return frozenset()  # what is called there is not looked at
    added, renewed = set[str](), set[str]()
    for node in nodes:
        match node:
            case ast.AugAssign(target=target, op=ast.Add()):
                added |= set(_attributes(target))
            case ast.Assign(targets=targets, value=value):
                names = {name for target in targets for name in _attributes(target)}
                added |= names & set(_read(value))
                renewed |= names - set(_read(value))
            case ast.Call(func=ast.Attribute(value=target, attr="fill")):
                renewed |= set(_attributes(target))
            case ast.keyword(arg="out", value=target):
                renewed |= set(_attributes(target))
    return frozenset(added - renewed)


def _each_pass(kind: type) -> Iterator[Any]:
    """The methods that are run for each pass, its own and those that it inherits."""
    return (function for name, function in inspect.getmembers(kind, inspect.isfunction) if name != "__init__")


def _attributes(target: ast.AST) -> Iterator[str]:
    """``dW`` for self.dW, self.dW[...] and the like."""
    if isinstance(target, (ast.Tuple, ast.List)):
        for part in target.elts:
            yield from _attributes(part)
    while isinstance(target, ast.Subscript):
        target = target.value
    if isinstance(target, ast.Attribute):
        yield target.attr


def _read(value: ast.AST) -> Iterator[str]:
    return (node.attr for node in ast.walk(value) if isinstance(node, ast.Attribute))
