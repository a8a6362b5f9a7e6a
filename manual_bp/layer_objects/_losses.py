"""Loss objects and functions: which argument is the target and in what form, found by names and by the forward pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from manual_bp import _torch_side
from manual_bp.adapters import Adapter
from manual_bp.candidate import Given, call
from manual_bp.errors import ManualBPError
from manual_bp.layer_objects import _methods
from manual_bp.layer_objects._views import View
from manual_bp.layer_objects._wired import INPUT_GRADIENT
from manual_bp.trace import Array

_FORWARD = (
    "calculate", "forward", "loss", "compute_loss", "calculate_loss", "calc_loss", "get_loss", "compute", "cost",
    "__call__", "forward_pass", "direct", "fn", "function", "func", "error", "value", "f", "apply",
)  # fmt: skip
_BACKWARD = (
    *_methods.BACKWARD,
    "gradient",
    "grad",
    "derivative",
    "prime",
    "deriv",
    "delta",
    "loss_gradient",
    "loss_grad",
    "df",
)

_TARGET = re.compile(
    r"^(y|t|ys|ts|y_?true|t_?true|targets?|labels?|y_?target|expected\w*|\w*_expected|actual\w*|ground_?truth|gt|truth|"
    r"desired|one_?hot\w*|y_?labels?|true\w*|\w*_true|correct\w*)$",
    re.IGNORECASE,
)

Form = Callable[[Array], Any]
Order = tuple[bool, Form]  # whether the target comes first, and the form in which it is wanted


@dataclass
class LossObject:
    """A loss as its author calls it: an object, a pair of functions, or one function that returns loss and gradient.

    ``forward(x, y)`` gives the loss, ``backward(x, y)``, called after it, the gradient of the prediction; both take the
    target as torch does.
    """

    loss: Any
    adapter: Adapter
    reference: Any
    view: View | None = None
    order: Order = (False, lambda y: y)
    _returned: Any = None

    def _expected(self, x: Array, y: Array) -> float:
        return float(
            _torch_side.layer_reference.loss_value(self.reference, self.view.to_torch(x) if self.view else x, y)
        )

    def forward(self, x: Array, y: Array) -> Array:
        """The scalar loss."""
        value = self._value(x, y, self.order)
        found = np.asarray(value)
        if found.size > 1:  # one number a sample, left to its caller to average
            expected = self._expected(x, y)
            summed = np.isclose(found.sum(), expected, rtol=1e-3) and not np.isclose(found.mean(), expected, rtol=1e-3)
            return np.asarray(found.sum() if summed else found.mean())
        return found.reshape(())

    def _value(self, x: Array, y: Array, order: Order) -> Any:
        first, form = order
        pair = (form(y), x) if first else (x, form(y))
        if self.adapter.forward and callable(self.adapter.forward):
            self._returned = self.adapter.forward(self.loss, x, form(y))
        elif self._wants(self._forward) == 1:
            self._stored_forward(x)
            self._returned = self._forward(form(y))
        else:
            self._returned = self._forward(*pair)
        return self._returned[0] if isinstance(self._returned, tuple) else self._returned

    def _stored_forward(self, x: Array) -> None:
        """``forward(x)`` first, ``calculate(y)`` after it."""
        function = getattr(self.loss, "forward", None)
        if callable(function):
            _methods.call_forward(function, x, training=True)

    @staticmethod
    def _wants(function: Callable[..., Any]) -> int:
        return sum(a.required for a in _methods.arguments(function))

    @property
    def _forward(self) -> Callable[..., Any]:
        if isinstance(self.loss, tuple):
            return self.loss[0]  # type: ignore[no-any-return]  # a function of the caller's
        if not _is_object(self.loss):
            return self.loss  # type: ignore[no-any-return]  # as above
        name = self.adapter.forward or _methods.method(self.loss, _FORWARD)
        if not name:
            raise ManualBPError(
                f"{type(self.loss).__name__} has no method that is called {', '.join(_FORWARD[:4])} or the like",
                hint="say which one gives the loss: Adapter(forward='its name')",
            )
        return getattr(self.loss, str(name))  # type: ignore[no-any-return]  # as above

    def method(self, which: Literal["forward", "backward"]) -> Any:
        """The function of the loss's author that does it."""
        said = getattr(self.adapter, which)
        return said if callable(said) else self._forward if which == "forward" else self._backward or self._forward

    # ------------------------------------------------------------------ backward

    def backward(self, x: Array, y: Array) -> Any:
        """dL/dx."""
        target = self.order[1](y)
        if callable(self.adapter.backward):
            return _first(self.adapter.backward(self.loss, x, target), x)
        own = self._backward
        if own is None:
            if isinstance(self._returned, tuple) and len(self._returned) > 1:  # (loss, gradient)
                return next((r for r in self._returned[1:] if np.shape(r) == x.shape), self._returned[1])
            raise ManualBPError(
                f"{getattr(self.loss, '__name__', type(self.loss).__name__)} has no backward method that is called "
                f"{', '.join(_BACKWARD[:3])}, gradient or the like",
                hint="say which one it is: Adapter(backward='its name')",
            )
        returned = own(*self._arguments(own, x, target))
        if returned is None:
            returned = _methods.attribute(self.loss, INPUT_GRADIENT)
        return _first(returned, x)

    @property
    def _backward(self) -> Callable[..., Any] | None:
        if isinstance(self.loss, tuple):
            return self.loss[1]  # type: ignore[no-any-return]  # a function of the caller's
        if not _is_object(self.loss):
            return None
        name = str(self.adapter.backward) or _methods.method(self.loss, _BACKWARD)
        return getattr(self.loss, name) if name else None

    def _arguments(self, function: Callable[..., Any], x: Array, target: Any) -> list[Any]:
        names = [a.name for a in _methods.arguments(function) if a.required and not a.keyword]
        if len(names) <= 1:
            cache = self._returned[1] if isinstance(self._returned, tuple) and len(self._returned) > 1 else None
            only = {True: target, False: 1.0}[bool(names and _TARGET.match(names[0]))]
            return [cache if cache is not None and _methods.CACHE.match(n) else only for n in names]
        if len(names) > 2:
            raise ManualBPError(
                f"the loss's backward method wants {', '.join(names)}",
                hint="say how it is called: Adapter(backward=lambda loss, x, y: loss.method(...))",
            )
        # a loss with its softmax built in differentiates what came out of that, and keeps it as its output
        stored = getattr(self.loss, "output", None)
        prediction = stored if isinstance(stored, np.ndarray) and stored.shape == x.shape else x
        first = self.order[0]
        marks = [bool(_TARGET.match(n)) for n in names]
        if marks[0] != marks[1]:
            first = marks[0]
        return [target, prediction] if first else [prediction, target]

    # ------------------------------------------------------------------ conventions

    def settle(self, x: Array, y: Array) -> bool:
        """Find the order of the arguments and the form of the target: by name, else by which gives torch's loss.

        Returns whether it computes in float32 whatever it is given.
        """
        expected = self._expected(x, y)
        options = list(self._options(x, y))
        failures: list[Order] = []
        for option in options:
            try:
                with np.errstate(all="ignore"):
                    found = np.asarray(self._value(x, y, option), np.float64)
            except Exception:  # noqa: BLE001  # a wrong order may well raise
                failures.append(option)
                continue
            if any(np.isclose(v, expected, rtol=1e-3) for v in (found.mean(), found.sum()) if found.size):
                self.order = option
                return self._single(x, y)
        left = [option for option in options if option not in failures]
        self.order = (left or options)[0]
        if not left:
            call(lambda: self._value(x, y, self.order), Given(), None, None)  # raises, with the loss's own traceback
        return self._single(x, y)

    def _single(self, x: Array, y: Array) -> bool:
        try:
            with np.errstate(all="ignore"):
                found = (self.forward(x, y), self.backward(x, y))
        except Exception:  # noqa: BLE001  # whatever it is, it is said when the loss is judged
            return False
        return any(getattr(value, "dtype", None) == np.float32 for value in found)

    def _options(self, x: Array, y: Array) -> Iterator[Order]:
        if callable(self.adapter.forward):
            yield self.order
            return
        orders = [False, True]
        names = [a.name for a in _methods.arguments(self._forward) if a.required]
        marks = [bool(_TARGET.match(n)) for n in names[:2]]
        if len(marks) == 2 and marks[0] != marks[1]:
            orders = [marks[0]]
        for form in _forms(self.reference, self.view.to_torch(x) if self.view else x, y):
            for first in orders:
                yield first, form
                if self.view and not self.view.plain:  # samples in columns
                    yield first, _transposed(form)


def _forms(reference: Any, x: Array, y: Array) -> Iterator[Form]:
    """The target as it is; one-hot for classes, or classes for one-hot; without or with an axis of one."""
    yield lambda y: y
    if _torch_side.layer_reference.takes_classes(reference) and x.ndim == 2:
        classes = x.shape[1]
        if y.dtype.kind in "iu":
            yield lambda y: np.eye(classes, dtype=x.dtype)[y]
            yield lambda y: y.reshape(-1, 1)
        else:
            yield lambda y: y.argmax(axis=1)
    elif y.ndim > 1 and y.shape[-1] == 1:
        yield lambda y: y[..., 0]
    elif y.ndim == 1:
        yield lambda y: y.reshape(-1, 1)


def _transposed(form: Form) -> Form:
    return lambda y: np.transpose(form(y))


def _is_object(loss: Any) -> bool:
    """An object with methods, not a bare function."""
    return not callable(loss) or _methods.method(loss, _BACKWARD) is not None


def _first(returned: Any, x: Array) -> Any:
    if isinstance(returned, (tuple, list)):
        return next((r for r in returned if np.shape(r) == x.shape), returned[0])
    if isinstance(returned, Mapping):
        return next(iter(returned.values()))
    return returned
