"""The pytest plugin: a fixture that judges a hand-written backward pass, and fails with a report that can be read.

::

    def test_my_network(gradient_parity):
        gradient_parity(my_pass, reference=MyModule(), x=x, y=y, loss=nn.CrossEntropyLoss())

    def test_my_layer(gradient_parity):
        gradient_parity.layer(MyConv(3, 8), nn.Conv2d(3, 8, 3), x=images)

Options for all calls of a test: ``@pytest.mark.gradient_parity(dtype="float32", strict_kinks=True)``; for all tests, in
the ini file: ``gradient_dtype``, ``gradient_strict_kinks``, ``gradient_report``. Nothing heavy is imported until the
fixture is called.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from manual_bp.report import Report

_PROPERTY = "gradient_report"

#: Of a file's name; what the system allows, 255 bytes, less endings and digest, and some letters take two bytes.
_LONGEST = 110


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--gradient-report`` and the ini options."""
    group = parser.getgroup("manual-bp", "hand-written gradients beside PyTorch's")
    group.addoption(
        "--gradient-report",
        metavar="DIR",
        help="write the HTML and JSON report of every gradient_parity call there",
    )
    parser.addini("gradient_report", "folder for the reports of gradient_parity calls; --gradient-report beats it")
    parser.addini("gradient_dtype", "float32 or float64: dtype of gradient_parity calls that do not say their own")
    parser.addini("gradient_strict_kinks", "make another subgradient at a kink a failure", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "gradient_parity(**options): options of verify for the gradient_parity calls of this test"
    )


class GradientParity:
    """What the fixture hands out: call it with the arguments of `manual_bp.verify`, or ``.layer`` of `verify_layer`."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._node: Any = request.node
        self._config = request.config
        self.reports: list[Report] = []

    def __call__(self, candidate: Any, reference: Any, **options: Any) -> Report:
        """Judge a pass; fails the test with the report unless everything is right.

        Returns
        -------
        Report
        """
        from manual_bp.verification import verify

        return self._run(verify, candidate, reference, options)

    def layer(self, layer: Any, reference: Any, **options: Any) -> Report:
        """Judge a layer object, see `manual_bp.verify_layer`."""
        from manual_bp.layer_objects import verify_layer

        return self._run(verify_layer, layer, reference, options)

    def _run(self, function: Callable[..., Report], candidate: Any, reference: Any, options: dict[str, Any]) -> Report:
        __tracebackhide__ = True
        from manual_bp.errors import ManualBPError

        try:
            report = function(candidate, reference, **{**self._defaults(), **options})
            self.reports.append(report)
            written = self._write(report)
        except ManualBPError as error:
            own = getattr(error, "traceback_text", "")
            # the first line is what pytest's summary shows
            said = f"{' '.join(error.what.split())}\n\n{own}error: {error}" if own else f"error: {error}"
            raise pytest.fail.Exception(said, pytrace=False) from None
        if not report.ok:
            more = f"\n\nThe whole report: {written}" if written else ""
            pytest.fail(f"{report}{more}", pytrace=False)
        return report

    def _defaults(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if dtype := self._config.getini("gradient_dtype"):
            options["dtype"] = dtype
        if self._config.getini("gradient_strict_kinks"):
            options["strict_kinks"] = True
        for marker in reversed(list(self._node.iter_markers("gradient_parity"))):
            options |= marker.kwargs
        return options

    def _write(self, report: Report) -> Path | None:
        folder = self._config.getoption("--gradient-report") or self._config.getini("gradient_report")
        if not folder:
            return None
        name = _file_name(self._node.nodeid)
        number = f"-{len(self.reports)}" if len(self.reports) > 1 else ""
        path: Path = Path(self._config.rootpath) / folder / f"{name}{number}.html"
        report.save(path)
        report.save(path.with_suffix(".json"))
        self._node.user_properties.append((_PROPERTY, str(path)))
        return path


def _file_name(nodeid: str) -> str:
    """One file a call, named by the test: workers of xdist never write to the same one.

    A digest tells those apart whose names differ in what no file's name should hold, or are longer than it can be.
    """
    name = re.sub(r"[^\w.-]+", "-", nodeid).strip("-")
    test, _, parameters = nodeid.partition("[")
    if re.fullmatch(r"[\w.]+", re.sub(r"::|/", "", test)) and re.fullmatch(r"([\w.-]+])?", parameters):
        return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-{_digest(nodeid)}"
    return f"{name[:_LONGEST]}-{_digest(nodeid)}"


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]


@pytest.fixture
def gradient_parity(request: pytest.FixtureRequest) -> GradientParity:
    """Judge a hand-written backward pass beside PyTorch's; see `manual_bp.verify` for the arguments."""
    return GradientParity(request)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say where the reports are, those of xdist's workers included."""
    finished = [r for key in ("passed", "failed") for r in terminalreporter.stats.get(key, [])]
    paths = [value for r in finished for key, value in getattr(r, "user_properties", []) if key == _PROPERTY]
    if paths:
        folder = Path(paths[0]).parent
        terminalreporter.write_line(f"gradient reports: {len(set(paths))} written to {folder}")
