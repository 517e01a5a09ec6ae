"""Pointers of Git LFS in place of data or weights are named as such."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.dataset.rows.files import read_file
from align.errors import DataError, ModelError
from align.weights.headers import stored_tensors

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow", "a.jsonl.gz"])
def test_data(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(DataError, match="this is a pointer") as caught:
        read_file(tmp_path / name)
    assert caught.value.file == str(tmp_path / name)
    assert "git lfs pull" in str(caught.value.remedy)


def test_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text(POINTER)
    with pytest.raises(ModelError, match="this is a pointer") as caught:
        stored_tensors(tmp_path)
    assert "git lfs pull" in str(caught.value.remedy)
