"""What all tests share: where things are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets that lie beside the checkout, or where $ALIGN_SHARED_DATA says.

    They are no part of the repository; a test that asks for them is skipped where they are absent.
    """
    folder = Path(os.environ.get("ALIGN_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set ALIGN_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as `make smollm2` leaves it, or where $ALIGN_SMOLLM2 says."""
    folder = Path(os.environ.get("ALIGN_SMOLLM2") or ROOT / "models" / "smollm2-135m-instruct")
    if not (folder / "config.json").is_file():
        pytest.skip(f"no model at {folder}: run `make smollm2`")
    return folder
