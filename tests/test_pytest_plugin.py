"""The fixture `gradient_parity`, through pytester: real pytest runs, in a process of their own where it matters."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

# pytester forgets what a run of its own has imported, and these cannot be imported twice
for name in ("numpy", "torch"):
    import_module(name)

CASE = """
    import numpy as np
    import pytest
    from torch import nn

    class Dense:
        factor = 1

        def __init__(self):
            self.W, self.b = np.zeros((4, 3)), np.zeros(3)

        def forward(self, x):
            self.x = x
            return x @ self.W + self.b

        def backward(self, d):
            self.dW, self.db = self.factor * self.x.T @ d, d.sum(0)
            return d @ self.W.T

    class Doubled(Dense):
        factor = 2

    x = np.random.default_rng(0).standard_normal((5, 4))

    def test_right(gradient_parity):
        report = gradient_parity.layer(Dense(), nn.Linear(4, 3), x=x)
        assert report.dtype == "float64"

    def test_wrong(gradient_parity):
        gradient_parity.layer(Doubled(), nn.Linear(4, 3), x=x)

    @pytest.mark.gradient_parity(dtype="float32")
    def test_marked(gradient_parity):
        assert gradient_parity.layer(Dense(), nn.Linear(4, 3), x=x).dtype == "float32"

    def test_mapping(gradient_parity):
        module = nn.Sequential(nn.Linear(4, 3))
        w, b = (p.detach().double().numpy() for p in module.parameters())
        gradient_parity({"0": x @ w.T + b},
                        reference=module, x=x)

    def test_unusable(gradient_parity):
        gradient_parity(lambda params, x: None, nn.Linear(4, 3), x=x)
"""


def test_right_passes_wrong_fails_with_a_report_and_every_report_is_written(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=CASE)
    result = pytester.runpytest_inprocess("--gradient-report=out", "-p", "no:randomly")
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(["*WRONG*Doubled*", "*weight.grad*", "*The whole report:*"])
    result.stdout.fnmatch_lines(["*the candidate returned nothing*"])
    result.stdout.fnmatch_lines(["gradient reports: 4 written to *out"])
    written = sorted(p.name for p in (pytester.path / "out").iterdir())
    assert len([name for name in written if name.endswith(".html")]) == 4
    assert "test_it.py-test_wrong.html" in written
    text = (pytester.path / "out" / "test_it.py-test_wrong.html").read_text(encoding="utf-8")
    assert "weight.grad" in text


UNUSABLE = """
    import numpy as np
    import pytest
    from torch import nn

    class Tanh:
        def forward(self, x):
            self.y = np.tanh(x)
            return self.y

        def backward(self, d):
            return d * (1 - self.y**2)

    class Raises(Tanh):
        def backward(self, d):
            raise ValueError("mine")

    class Leaves(Tanh):
        def forward(self, x):
            raise SystemExit(0)

    x = np.random.default_rng(0).standard_normal((5, 4))

    def test_raises(gradient_parity):
        gradient_parity.layer(Raises(), nn.Tanh(), x=x)

    def test_leaves(gradient_parity):
        gradient_parity.layer(Leaves(), nn.Tanh(), x=x)

    @pytest.mark.parametrize("what", ["a/b", "a-b", "a b", pytest.param(0, id="long" * 60)])
    def test_names(gradient_parity, what):
        gradient_parity.layer(Tanh(), nn.Tanh(), x=x)
"""


def test_what_cannot_be_judged_fails_in_one_sentence(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=UNUSABLE)
    result = pytester.runpytest_subprocess("-k", "raises or leaves")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_raises - Failed: the candidate raised ValueError*"])
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_leaves - Failed: it raised SystemExit: 0*"])
    result.stdout.no_fnmatch_line("*direct cause*")
    result.stdout.no_fnmatch_line("*manual_bp/layer_objects*")


def test_no_report_takes_the_place_of_another_whatever_the_tests_are_called(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=UNUSABLE)
    pytester.runpytest_subprocess("-k", "names", "--gradient-report=out").assert_outcomes(passed=4)
    written = [path.name for path in (pytester.path / "out").glob("*.html")]
    assert len(written) == 4
    assert "test_it.py-test_names-a-b.html" in written


def test_a_folder_that_cannot_be_written_is_one_sentence(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=UNUSABLE)
    result = pytester.runpytest_subprocess("-k", "names and a-b", "--gradient-report=test_it.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["error: cannot write *test_it.py*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_ini_options_hold_for_all_calls(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ngradient_dtype = float32\ngradient_report = everything\n")
    pytester.makepyfile(test_it=CASE.replace('assert report.dtype == "float64"', 'assert report.dtype == "float32"'))
    result = pytester.runpytest_inprocess("-k", "right")
    result.assert_outcomes(passed=1)
    assert (pytester.path / "everything" / "test_it.py-test_right.json").is_file()


def test_workers_write_and_the_controller_says_where(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(test_it=CASE)
    result = pytester.runpytest_subprocess("-n", "2", "--gradient-report=out", "-k", "right or wrong")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["gradient reports: 2 written to *out"])


def test_loading_the_plugin_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, pytest; pytest.main(['--version', '-p', 'manual_bp.pytest_plugin'])\n"
        "import manual_bp.pytest_plugin\n"
        "print([m for m in ('numpy', 'torch', 'rich', 'jinja2', 'click') if m in sys.modules])"
    )
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": "/usr/bin:/bin"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip().endswith("[]"), found.stdout
