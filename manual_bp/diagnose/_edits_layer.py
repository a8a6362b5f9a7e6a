"""Edits of a whole operation: one of its options exchanged, or another operation of its kind in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from typing import Any

from manual_bp import nn

#: Operations that are taken for each other.
KINDS: tuple[tuple[Any, ...], ...] = (
    (
        nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.LeakyReLU(), nn.SiLU(), nn.Softplus(), nn.GELU(),
        nn.GELU(approximate="tanh"), nn.Identity(),
    ),
    (
        nn.MSELoss(), nn.HalfSquaredError(), nn.L1Loss(), nn.HuberLoss(), nn.SmoothL1Loss(), nn.BCELoss(),
        nn.BCEWithLogitsLoss(),
    ),
    (nn.CrossEntropyLoss(), nn.NLLLoss()),
)  # fmt: skip

_NUMBERS = (0.0, 1e-8, 1e-6, 1e-5, 1e-3, 0.01, 0.1, 0.2, 0.5, 0.9, 0.99, 0.999, 1.0, 2.0)


def layer_edits(part: Any) -> Iterator[tuple[str, str, float, Any]]:
    """identifier, name, cost, and the layer (loss, optimiser) in its place."""
    own = type(part).__name__
    for field in fields(part):
        value = getattr(part, field.name)
        default = field.default if field.default is not MISSING else None
        for other in _others(field.name, value, default):
            changed = _changed(part, field.name, other)
            if changed is not None:
                ignored = other == default or other in (None, 0, 0.0, False)
                name = f"{field.name} is {_plain(other)}, not {_plain(value)}"
                yield (
                    ("option-ignored" if ignored else "option-wrong"),
                    f"{own}: {name}",
                    1.2 if ignored else 2.1 if other in _NUMBERS else 1.7,  # any number: a relation says more
                    changed,
                )
    if isinstance(part, nn.Softmax | nn.LogSoftmax):
        other = (nn.LogSoftmax if isinstance(part, nn.Softmax) else nn.Softmax)(part.dim)
        yield "other-function", f"{type(other).__name__} in place of {own}", 1.5, other
    if isinstance(part, nn.Adam):
        sibling = nn.Adam if isinstance(part, nn.AdamW) else nn.AdamW
        other = sibling(part.lr, part.betas, part.eps, part.weight_decay, part.amsgrad)
        yield "option-mixed-up", f"the weight decay of {sibling.__name__}, not that of {own}", 1.1, other
        yield "other-function", f"plain SGD in place of {own}", 1.8, nn.SGD(part.lr)
    for kind in KINDS:
        if any(type(other) is type(part) for other in kind):
            for other in kind:
                if type(other) is not type(part) or other != part:
                    if isinstance(other, nn.Loss):
                        changed = _changed(other, "reduction", part.reduction)
                        other = changed if changed is not None else other
                    yield "other-function", _exchanged(other, part), 1.6, other


def _exchanged(other: Any, part: Any) -> str:
    """``Tanh in place of ReLU``; ``GELU(approximate='tanh') in place of GELU()`` where the type does not tell."""
    if type(other) is not type(part):
        return f"{type(other).__name__} in place of {type(part).__name__}"
    differs = [f for f in fields(part) if getattr(other, f.name) != getattr(part, f.name)]
    told = (
        ", ".join(f"{f.name}={value!r}" for f in differs if (value := getattr(one, f.name)) != f.default)
        for one in (other, part)
    )
    name = type(part).__name__
    return " in place of ".join(f"{name}({options})" for options in told)


def _others(name: str, value: Any, default: Any) -> list[Any]:
    if name in ("weight", "pos_weight") and value is not None:
        return [None]
    if name == "reduction":
        return [r for r in ("mean", "sum") if r != value]
    if name == "betas":
        return [(value[1], value[0]), (0.9, 0.999), (0.0, value[1]), (value[0], 0.0)]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, float):
        own = [2 * value, value / 2, value * value, 10 * value, value / 10] if value else []
        known = [*([default] if default is not None else []), *own, *_NUMBERS]
        return [n for n in dict.fromkeys(known) if n != value]
    if isinstance(value, str) and name == "approximate":
        return ["tanh" if value == "none" else "none"]
    if isinstance(value, int) and name in ("dim", "start_dim", "end_dim"):
        return [d for d in (0, 1, 2, -1) if d != value]
    return []


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _changed(part: Any, name: str, value: Any) -> Any:
    try:
        return replace(part, **{name: value})
    except (ValueError, TypeError):
        return None  # an option that the layer refuses is no plausible mistake
