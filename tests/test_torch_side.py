from __future__ import annotations

import sys

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
