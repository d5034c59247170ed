"""Poisoned data can be made where there is no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "lightning", "transformers", "numpy", "pyarrow", "datasets")


@pytest.mark.parametrize("module", ["bdlit.attacks", "bdlit.tables", "bdlit.data.poisoned_file"])
def test_import_is_light(module):
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
