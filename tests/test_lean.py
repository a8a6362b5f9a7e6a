"""A judgement that saves work: bounds of the replay end to end where they do, both sides in threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from manual_bp import mutants, networks, nn, probes
from manual_bp._torch_side import judge, side
from manual_bp.compare import Item, compare
from manual_bp.network import Network
from manual_bp.probes import Probe
from manual_bp.report import Check
from manual_bp.trace import Trace
from manual_bp_torch.bounds import Bound, Operands, Precision, _linear, rule_for
from manual_bp_torch.bounds._model import called

#: Mistakes of LeNet, at the head, in the middle and at the tail.
MISTAKES = [
    ("conv-kernel-not-rotated", "conv2"),
    ("relu-mask-of-upstream", "relu3"),
    ("db-batch-averaged", "fc2"),
    ("linear-y-bias-twice", "fc2"),
]


@cache
def network() -> Network:
    return replace(networks.get("lenet"), optimizer=nn.SGD(lr=0.1))


@cache
def probe(name: str, dtype: str) -> Probe:
    return probes.probe(network(), name, dtype=dtype, batch=8)


def trace_of(candidate: Network, given: Probe) -> Trace:
    run = candidate.run(given.params, given.x, given.y)
    return {name: np.asarray(array, order="C") for name, array in run.trace.items()}


def items(given: Probe, trace: Trace, **options: Any) -> Iterator[Item]:
    judged = judge.Judge(network(), str(given.x.dtype))
    return judged.each(given.params, given.x, given.y, trace, **options)


def checks(given: Probe, trace: Trace, **options: Any) -> tuple[Check, ...]:
    return compare(items(given, trace, **options), trace, probe=given.name)


def mistaken(which: tuple[str, str]) -> Network:
    return mutants.get(which[0]).plant(network(), which[1])


@pytest.fixture
def all_lean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of the replay wherever there are any, also where they will be too little."""
    monkeypatch.setattr(_linear, "FEW", 0)
    monkeypatch.setattr(_linear, "MANY", 0)
    monkeypatch.setattr(_linear, "CARRIED", float("inf"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["digits", "saturation", "seed-1"])
@pytest.mark.usefixtures("all_lean")
def test_what_is_at_hand_is_never_more_than_what_may_differ(name: str, dtype: str) -> None:
    given = probe(name, dtype)
    trace = trace_of(network(), given)
    tight = 0
    for lean, full in zip(items(given, trace, lean=True), items(given, trace), strict=True):
        assert lean.end_to_end is not None
        assert full.end_to_end is not None
        np.testing.assert_array_equal(lean.end_to_end.value, full.end_to_end.value)
        assert (lean.end_to_end.allowed <= full.end_to_end.allowed * (1 + 1e-5)).all(), lean.quantity.name
        tight += lean.end_to_end.wider is not None
    assert tight > 10


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["digits", "saturation", "seed-1"])
@pytest.mark.parametrize("which", [None, *MISTAKES], ids=str)
@pytest.mark.usefixtures("all_lean")
def test_the_verdict_is_the_same_where_it_is_too_little(which: tuple[str, str] | None, name: str, dtype: str) -> None:
    given = probe(name, dtype)
    trace = trace_of(mistaken(which) if which else network(), given)
    asked: list[str] = []

    def counted(every: Iterator[Item]) -> Iterator[Item]:
        for item in every:
            end = item.end_to_end
            if end is not None and end.wider is not None:
                end.__dict__["wider"] = lambda make=end.wider, of=item.quantity.name: asked.append(of) or make()
            yield item

    lean = compare(counted(items(given, trace, lean=True)), trace, probe=name)
    full = checks(given, trace)
    assert [c.isolated for c in lean] == [c.isolated for c in full]
    differ = [(a.status, b.status) for a, b in zip(lean, full, strict=True) if a.status != b.status]
    # behind a mistake less hides what it does
    assert set(differ) <= ({("inherited", "pass")} if which else set())
    if which is None and name == "saturation":
        assert asked  # else nothing was tried


@pytest.mark.usefixtures("all_lean")
def test_a_bound_that_float32_does_not_hold_is_made_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Operands.guard
    rule = rule_for(torch.nn.Linear(3, 2))
    assert isinstance(rule, _linear.Affine)
    x, g, e = torch.randn(4, 3), torch.randn(4, 2), torch.full((4, 3), 1e-6)
    params = {"weight": torch.randn(2, 3), "bias": torch.randn(2)}
    s = Operands(torch.nn.Linear(3, 2), (x,), (e,), params, torch.randn(4, 2), Precision.of(torch.float32))
    near = Bound(torch.full((4, 2), 1e-9), "near")
    # as for more products than 2^18
    monkeypatch.setattr(Operands, "guard", lambda s, n: float("inf") if s.narrow else guard(s, n))
    found = rule.within(s, near)
    assert found is not None
    assert found.wider is not None
    assert torch.isfinite(found.wider().e).all()
    back = rule.backward(
        s,
        g,
        torch.full_like(g, 1e-6),
        _linear.Near(Bound(torch.zeros(4, 3), ""), {n: Bound(p * 0, "") for n, p in params.items()}),
    )
    for bound in (*back.inputs, *back.params.values()):
        assert bound.wider is not None
        assert torch.isfinite(bound.wider().e).all()


@pytest.mark.usefixtures("all_lean")
def test_where_something_is_not_reported_nothing_is_left_out() -> None:
    given = probe("digits", "float32")
    trace = trace_of(network(), given)
    del trace["relu3"]
    assert all(i.end_to_end is None or i.end_to_end.wider is None for i in items(given, trace, lean=True))


@pytest.mark.usefixtures("all_lean")
def test_an_update_is_allowed_what_its_gradient_was_found_to_need() -> None:
    given = probe("saturation", "float32")
    trace = trace_of(network(), given)
    lean = checks(given, trace, lean=True)
    assert {c.status for c in lean} <= {"pass", "kink"}
    assert [c.note for c in lean] == [c.note for c in checks(given, trace)]


def test_a_large_network_is_judged_with_what_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    from manual_bp import runner

    monkeypatch.setattr(runner, "LITTLE", 0)
    given, leans = probe("seed-1", "float32"), []
    each = judge.Judge.each

    def seen(self: Any, *operands: Any, lean: bool = False) -> Iterator[Item]:
        leans.append(lean)
        return each(self, *operands, lean=lean)

    monkeypatch.setattr(judge.Judge, "each", seen)
    report = runner.judge_network(network(), [given])
    assert report.verdict == "pass"
    assert leans == [True]


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(judge, "ALONE", 0)
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2  # whatever happened meanwhile
    torch.set_num_threads(before)


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("which", [None, MISTAKES[0]], ids=str)
def test_side_by_side_the_checks_are_those_of_one_after_the_other(
    which: tuple[str, str] | None, lean: bool, request: pytest.FixtureRequest
) -> None:
    given = probe("digits", "float32")
    trace = trace_of(mistaken(which) if which else network(), given)
    in_turn = checks(given, trace, lean=lean)
    request.getfixturevalue("two_threads")
    beside = checks(given, trace, lean=lean)
    assert [(c.name, c.status, c.isolated) for c in beside] == [(c.name, c.status, c.isolated) for c in in_turn]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("which", MISTAKES, ids=str)
def test_a_mistake_in_a_large_network_is_named(which: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of it is gathered once more, by both threads."""
    from manual_bp import runner

    monkeypatch.setattr(runner, "LITTLE", 0)
    given = [probe("digits", "float32"), probe("seed-1", "float32")]
    report = runner.judge_network(network(), given, candidate=mistaken(which))
    faulty = mutants.get(which[0]).faulty(network(), which[1])
    assert {c.name for c in report.checks if c.status == "wrong"} == faulty
    assert report.first_wrong in faulty
    assert all(c.diagnosis is not None for c in report.checks if c.status == "wrong")


def test_a_module_that_is_called_with_other_numbers_keeps_its_own() -> None:
    """Another thread may be using it."""

    class Watched(torch.nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name for it
            assert (shared.weight is weight, shared.bias is bias) == (True, True)
            return super().forward(input)

    shared = Watched(2, 3, 3)
    weight, bias = shared.weight, shared.bias
    x, other = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)
    assert torch.equal(called(shared, {"weight": other}, x), torch.conv2d(x, other, bias))
    with pytest.raises(AssertionError):
        called(shared, {"scale": other}, x)


@pytest.mark.usefixtures("two_threads")
def test_what_goes_wrong_in_the_other_thread_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    given = probe("digits", "float32")
    threads = set()
    compute: Callable[..., None] = side.Side.compute

    def fails(self: side.Side, stage: side.Stage) -> None:
        threads.add((type(self).__name__, threading.current_thread() is threading.main_thread()))
        if isinstance(self, side.Replay) and stage == ("backward", "conv2"):
            raise MemoryError("of the replay")
        compute(self, stage)

    monkeypatch.setattr(side.Side, "compute", fails)
    with pytest.raises(MemoryError, match="of the replay"):
        checks(given, trace_of(network(), given))
    assert threads == {("Replay", False), ("Own", True)}


@pytest.mark.usefixtures("two_threads")
def test_who_stops_looking_leaves_no_thread_behind() -> None:
    given = probe("digits", "float32")
    before = threading.active_count()
    every = items(given, trace_of(network(), given))
    for _ in range(20):
        next(every)
    every.close()  # type: ignore[attr-defined]  # a generator's
    assert threading.active_count() == before
