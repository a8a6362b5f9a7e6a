from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from manual_bp import ManualBPError, _torch_side


def test_the_door_leads_to_the_modules_of_the_torch_side() -> None:
    import manual_bp_torch.build

    assert _torch_side.build is manual_bp_torch.build


def test_torch_is_one_thread_here_and_says_its_version() -> None:
    import torch

    assert torch.get_num_threads() == 1
    assert _torch_side.torch_version() == torch.__version__


def test_without_torch_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ManualBPError, match=r"cannot be imported.* install it with: pip install torch"):
        _ = _torch_side.build


def test_a_private_name_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(AttributeError, match="_nonsense"):
        _ = _torch_side._nonsense


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch's libraries are loaded by its import alone")
def test_torchs_libraries_are_loaded_before_it_is_imported() -> None:
    code = """
import sys, threading
from manual_bp import _torch_side
_torch_side.prepare()
for thread in threading.enumerate():
    if thread.daemon:
        thread.join()
assert "torch" not in sys.modules
print("libtorch_python.so" in open("/proc/self/maps").read())
import torch
print(float(torch.ones(3) @ torch.ones(3)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["True", "3.0"], "")


@pytest.mark.parametrize("inside", ["", "lib/libtorch_global_deps.so"])
def test_a_torch_whose_libraries_cannot_be_loaded_is_one_clear_error(inside: str, tmp_path: Path) -> None:
    package = tmp_path / "torch"
    (package / "lib").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('half installed')")
    if inside:
        (package / inside).write_bytes(b"no library")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[1:] = ['compare']; import manual_bp.__main__"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the reference needs torch, which cannot be imported: half installed")
    assert "Traceback" not in done.stderr


def test_a_calibrated_judgement_imports_neither_torchs_compiler_nor_sympy() -> None:
    code = """
import sys
import numpy as np
import torch
from torch import nn
from manual_bp import verify
x = np.linspace(-1.0, 1.0, 12).reshape(3, 4)
mine = lambda params, x, y: {"1": np.zeros((3, 3))}
report = verify(mine, nn.Sequential(nn.Linear(4, 3), nn.Mish()), loss=nn.MSELoss(), x=x, y=x[:, :3])
print(report.first_wrong, [check.rule for check in report.checks if check.name == "1"][0])
print(*({"torch._dynamo", "sympy"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines(), done.stderr) == (["1 calibrated: stochastic arithmetic in float64", ""], "")
