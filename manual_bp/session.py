"""What stays the same over the probes of one comparison: the reference, the data as given, names and layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from manual_bp import _torch_side
from manual_bp.candidate import Naming, as_array
from manual_bp.diagnose import Evidence
from manual_bp.errors import ManualBPError
from manual_bp.guards import LogLoss
from manual_bp.inputs import mapped, named, rebuilt
from manual_bp.layouts import TORCH_ORDER, parse, to_torch_layout
from manual_bp.trace import Array
from manual_bp.variants import Variant, variants


def by_name(what: str, given: Any) -> Any:
    """An argument that is a mapping, if it is given.

    Raises
    ------
    ManualBPError
        If it is anything else.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ManualBPError(f"{what} is a {type(given).__name__}", hint="give a dictionary by name")
    return given


def _seed(given: Any) -> int:
    if not isinstance(given, int | np.integer) or given < 0:
        raise ManualBPError(f"the seed is {given!r}", hint="give a whole number, 0 or more")
    return int(given)


class Session:
    """Everything that stays the same over the probes."""

    def __init__(
        self,
        reference: Any,
        x: Any,
        y: Any,
        loss: Any,
        params: Mapping[str, Any] | None,
        naming: Naming,
        dtype: str | None,
        seed: int,
    ) -> None:
        self.naming = naming
        self.seed = _seed(seed)
        data = mapped(x, lambda part: as_array("x", part, whose="the given"))
        # without a loss y is dL/d(output), and laid out like it
        self.y_name = "output" if loss is None and "y" not in naming.layouts else "y"
        own = {str(part.dtype) for part in named(data).values()} & {"float32", "float64"}
        self.dtype = dtype or (own.pop() if len(own) == 1 else "float64")
        if self.dtype not in ("float32", "float64"):
            raise ManualBPError(f"there is no dtype {dtype!r} to compare in", hint="choose float32 or float64")
        torch_dtype = _torch_side.build.TORCH_DTYPES[self.dtype]
        self.program = _torch_side.program.Program(reference, loss, torch_dtype)
        self.judge = _torch_side.program_judge.ProgramJudge(self.program)
        self.name = getattr(reference, "__name__", type(reference).__name__)
        self.x = rebuilt(data, {name: self._from_candidate(name, part) for name, part in named(data).items()})
        self.params = self._own_params(by_name("params", params))
        self.y = None if y is None else self._from_candidate(self.y_name, as_array("y", y, whose="the given"))
        self.upstream = False
        if loss is None:
            self._settle_upstream()
        self.steps: tuple[Any, ...] = ()
        self.params_used = False
        self.evidence: Evidence | None = None
        self.log_loss: LogLoss | None = None
        self.refusal: ManualBPError | None = None

    def _from_candidate(self, name: str, array: Array) -> Array:
        """x and y may be given as the candidate stores them."""
        layout = self.naming.layout(name, name)
        if layout is not None:
            order = parse(layout)
            if all(len(axis) == 1 for axis in order.axes) and "1" not in order.axes and len(order.axes) == array.ndim:
                axes = [order.letters.index(c) for c in sorted(order.letters, key=TORCH_ORDER.index)]
                array = array.transpose(axes)
        return self._convert(array)

    def _convert(self, array: Array) -> Array:
        if array.dtype.kind == "f":
            array = array.astype(self.dtype)
        if array.dtype.kind in "iu":
            array = array.astype(np.int64)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ManualBPError("the given data has elements that are not finite", hint="give finite numbers")
        return np.array(array, order="C")

    def _own_params(self, params: Mapping[str, Any] | None) -> dict[str, Array]:
        module = self.program.module
        if params is None:
            if module is None:
                return {}
            return self._module_params()
        given = {self.naming.reference_name(n): (n, as_array(n, a, whose="the given")) for n, a in params.items()}
        if module is None:
            return {
                name: self._convert_param(self._param_layout(own, name, a, None)) for name, (own, a) in given.items()
            }
        whole = self._module_params()
        known = {name: a.shape for name, a in whole.items()}
        for name, (own, _) in given.items():
            if name not in known:
                raise ManualBPError(f"the reference has no parameter {own!r}", hint=f"it has {', '.join(known)}")
        for name, (own, a) in given.items():
            value = self._convert_param(self._param_layout(own, name, a, known[name]))
            if value.shape != known[name]:
                raise ManualBPError(
                    f"parameter {own!r} has shape {value.shape}, the reference's has {known[name]}",
                    hint="give it in torch's layout, or say its own with layouts={...}",
                )
            whole[name] = value
        return whole

    def _module_params(self) -> dict[str, Array]:
        """The module's own parameters and buffers, a tied one once."""
        tied = self.program.tied()
        every = _torch_side.weights.from_torch(self.program.module)
        return {name: self._convert_param(a) for name, a in every.items() if name not in tied}

    def _param_layout(self, own: str, name: str, array: Array, shape: tuple[int, ...] | None) -> Array:
        layout = self.naming.layout(own, name)
        return to_torch_layout(array, layout, target=shape, name=own) if layout and shape else array

    def _convert_param(self, array: Array) -> Array:
        return np.array(array.astype(self.dtype) if array.dtype.kind == "f" else array, order="C")

    def _settle_upstream(self) -> None:
        """Without a loss ``y`` is dL/d(output): random if it is not given, never ones, which hide classes of mistakes.

        A reference that returns its loss has no use for one.
        """
        shape = self.program.output_shape(self._tensors(self.params), self._inputs(self.x), self._tensor(self.y))
        self.upstream = shape != ()
        if self.upstream and self.y is None:
            self.y = np.random.default_rng([self.seed, 1]).standard_normal(shape).astype(self.dtype)

    def note(self, text: str) -> None:
        """Say something in the report, once."""
        if text not in self.program.notes:
            self.program.notes.append(text)

    def know(self, found: Any, structure: Any) -> None:
        """What a recording pass shows: the graph, and further names of quantities."""
        first = not self.steps
        self.steps = self.steps or self.judge.steps(found, structure)
        also = {**({"output": structure.output} if structure.output else {}), **structure.aliases}
        self.naming.also({name: tap for name, tap in also.items() if name not in found.values} | self.program.tied())
        if first:
            self.naming.check({*found.values, *found.grads, *self.params, self.y_name, "y", "output"})

    def record(self, setting: Any) -> tuple[Any, Any]:
        """The reference's own pass, and its graph; the first time, it must give the same numbers twice.

        Raises
        ------
        ManualBPError
            It draws random numbers, or gets names that it does not have; or it raises itself, kept as ``refusal``.
        """
        first = not self.steps
        try:
            found, structure = self.judge.record(setting)
        except _torch_side.failures.TheirError as error:
            self.refusal = error
            raise
        if first and (name := self.judge.random_quantity(setting, found)):
            raise ManualBPError(
                f"the reference is random: a second pass gives another {name!r}",
                hint="leave dropout out, or fix its mask; seed what is drawn inside",
            )
        self.know(found, structure)
        return found, structure

    @staticmethod
    def finite(found: Any) -> bool:
        """Whether the reference's own pass has a finite loss and finite gradients."""
        loss = found.values.get(_torch_side.program.LOSS)
        told = [*found.grads.values(), *([] if loss is None else [loss])]
        return all(bool(t.isfinite().all()) for t in told)

    def _tensor(self, array: Any) -> Any:
        return _torch_side.weights.to_torch(np.asarray(array)) if isinstance(array, np.ndarray | np.generic) else array

    def _inputs(self, x: Any) -> Any:
        return mapped(x, self._tensor)

    def _tensors(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        return {name: self._tensor(a) for name, a in arrays.items()}

    def setting(self, probe: Variant) -> Any:
        """One probe, for torch."""
        return _torch_side.program_judge.Setting(
            self._tensors(probe.params), self._inputs(probe.x), self._tensor(probe.y)
        )

    def _own_probe(self, probe: Variant) -> Variant:
        """A probe of the user's in the dtype under judgement, with the parameters of the first one if it has none."""
        params = {name: self._convert_param(np.asarray(a)) for name, a in probe.params.items()} or self.params
        y = self._convert(as_array("y", probe.y)) if probe.y is not None else self.y
        return replace(probe, params=params, x=mapped(probe.x, lambda part: self._convert(as_array("x", part))), y=y)

    def probes(self, wanted: Sequence[str | Variant] | str, *, seed: int | None = None) -> list[Variant]:
        """The given data first, then variants of it."""
        seed = self.seed if seed is None else seed
        trained = self.program.trained(self._tensors(self.params))
        every = variants(self.params, trained, self.x, self.y, seed=seed, upstream=self.upstream)
        if wanted == "all":
            return every
        if own := [probe for probe in wanted if isinstance(probe, Variant)]:
            return [every[0], *(self._own_probe(p) for p in own)]
        names = [wanted] if isinstance(wanted, str) else [str(name) for name in wanted]
        known = {probe.name: probe for probe in every}
        for name in names:
            if name not in known:
                raise ManualBPError(f"there is no probe {name!r}", hint=f"choose from {', '.join(known)}")
        return [known[name] for name in names] or [every[0]]
