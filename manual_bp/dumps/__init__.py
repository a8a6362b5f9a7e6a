"""Dumps: named arrays in a file, so that a program in any language can be judged.

`fixture` and `write` give a program its weights, inputs and targets; `judge_dump` judges what it wrote; `compare_dumps`
holds any two dumps against each other without torch.
"""

from __future__ import annotations

from manual_bp.dumps._case import case_fixture
from manual_bp.dumps._diff import ArrayDiff, DumpDiff, compare_dumps
from manual_bp.dumps._dump import Dump, Form, form_of, read, write
from manual_bp.dumps._export import fixture
from manual_bp.dumps._judge import judge_dump
from manual_bp.dumps._manifest import Given, Manifest, Wanted

__all__ = [
    "ArrayDiff",
    "Dump",
    "DumpDiff",
    "Form",
    "Given",
    "Manifest",
    "Wanted",
    "case_fixture",
    "compare_dumps",
    "fixture",
    "form_of",
    "judge_dump",
    "read",
    "write",
]
