"""Reward files on machines that do not have them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from align.reward.calls import parcel
from align.reward.calls.parcel import arrived, pack
from align.reward.functions.registry import resolve

REWARD = """
from .beside_it import BONUS


def reward(completion):
    return len(completion) + BONUS
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A reference to a file that imports another; temporary folders are elsewhere."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "beside_it.py").write_text("BONUS = 3\n")
    (folder / "length.py").write_text(REWARD)
    (folder / "notes.txt").write_text("no code")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return f"{folder / 'length.py'}:reward"


def test_where_the_file_is_it_is_used(there: str) -> None:
    assert arrived(pack(there), there) == there


def test_elsewhere_a_copy_is_made_once_with_what_it_imports(there: str) -> None:
    sent = pack(there)
    assert sent is not None
    assert [name for name, _ in sent.files] == ["beside_it.py", "length.py"]
    shutil.rmtree(Path(there).parent)
    copy = arrived(sent, there)
    assert copy != there
    assert arrived(sent, there) == copy
    assert resolve(copy).function(completion="four") == 7


def test_another_version_on_the_machine_is_not_used(there: str) -> None:
    sent = pack(there)
    Path(there.rpartition(":")[0]).write_text("def reward(completion):\n    return -1\n")
    assert arrived(sent, there) != there


def test_a_large_folder_sends_the_file_alone(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "LARGEST", 50)
    sent = pack(there)
    assert sent is not None
    assert [name for name, _ in sent.files] == ["length.py"]


def test_what_is_installed_stays(there: str) -> None:
    assert pack("trl.rewards:think_format_reward") is None
    assert arrived(None, "trl.rewards:think_format_reward") == "trl.rewards:think_format_reward"
