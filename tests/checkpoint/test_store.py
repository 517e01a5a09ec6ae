import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from align.checkpoint.store import CheckpointStore, open_checkpoint
from align.errors import CheckpointError


def fill(content: str = "weights"):
    def write(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / "model.safetensors").write_text(content)
        (folder / "optimizer.safetensors").write_bytes(b"")  # an empty file is a file too

    return write


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", keep=2, recipe_hash="abc")


def names(store):
    return sorted(path.name for path in store.root.iterdir())


def test_a_saved_checkpoint_comes_back_whole(store):
    path = store.save(7, fill("seven"), {"cursor": 3, "version": 7})
    found = store.latest()
    assert found is not None
    assert (found.path, found.step, found.state()) == (path, 7, {"cursor": 3, "version": 7})
    found.verify()
    assert (path / "model" / "model.safetensors").read_text() == "seven"
    assert set(found.files) == {"model/model.safetensors", "optimizer.safetensors", "state.json"}
    assert (store.root / "latest").read_text() == "step-000007\n"


def test_there_is_nothing_before_the_first_save(store):
    assert store.latest() is None


def test_only_the_newest_are_kept(store):
    for step in (1, 2, 3):
        store.save(step, fill(), {})
    assert names(store) == ["latest", "step-000002", "step-000003"]


def test_pruning_goes_by_step_and_not_by_name(store):
    for step in (999_999, 1_000_000, 1_000_001):
        store.save(step, fill(), {})
    assert names(store) == ["latest", "step-1000000", "step-1000001"]
    found = store.latest()
    assert found is not None
    assert found.step == 1_000_001


def test_going_back_drops_the_steps_that_were_given_up(store):
    store.save(10, fill(), {})
    store.save(20, fill(), {})
    (store.root / "latest").write_text("step-000010\n")
    found = store.latest()
    assert found is not None
    assert found.step == 10
    store.save(15, fill(), {})
    assert names(store) == ["latest", "step-000010", "step-000015"]


def test_a_step_can_be_saved_again(store):
    store.save(5, fill("old"), {})
    path = store.save(5, fill("new"), {})
    assert (path / "model" / "model.safetensors").read_text() == "new"
    open_checkpoint(path).verify()
    assert names(store) == ["latest", "step-000005"]


def test_a_failing_writer_leaves_nothing(store):
    store.save(1, fill(), {})

    def broken(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.save(2, broken, {})
    assert names(store) == ["latest", "step-000001"]


def test_an_unwritable_place_is_one_clear_error(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the directory should be")
    store = CheckpointStore(tmp_path / "checkpoints", keep=1, recipe_hash="abc")
    with pytest.raises(CheckpointError, match="cannot save step 1"):
        store.save(1, fill(), {})


@pytest.mark.parametrize("name", ["model/model.safetensors", "state.json"])
def test_a_flipped_byte_is_found(store, name):
    store.save(1, fill(), {"cursor": 1})
    path = store.save(2, fill(), {"cursor": 2}) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="sha256") as caught:
        store.latest().verify()
    assert caught.value.file == str(path)
    assert "write step-000001 into" in caught.value.remedy


def test_a_truncated_file_is_found(store):
    path = store.save(1, fill("weights"), {}) / "model" / "model.safetensors"
    path.write_text("weig")
    with pytest.raises(CheckpointError, match="has 4 bytes, 7 were saved") as caught:
        store.latest().verify()
    assert "no other checkpoint" in caught.value.remedy


def test_a_missing_file_is_found(store):
    path = store.save(1, fill(), {}) / "optimizer.safetensors"
    path.unlink()
    with pytest.raises(CheckpointError, match="missing") as caught:
        store.latest().verify()
    assert caught.value.file == str(path)


def test_a_damaged_manifest_never_passes(store):
    """Any one changed byte that changes what the manifest says is noticed."""
    path = store.save(2, fill(), {"cursor": 1}) / "manifest.json"
    whole = path.read_bytes()
    meant = json.loads(whole)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        try:
            if json.loads(damaged) == meant:
                continue
        except ValueError:
            pass
        with pytest.raises(CheckpointError):
            store.latest().verify()


def test_another_recipe_is_refused(store):
    store.save(1, fill(), {})
    other = CheckpointStore(store.root, keep=2, recipe_hash="def")
    with pytest.raises(CheckpointError, match="another recipe"):
        other.latest()


def test_a_pointer_to_nothing_names_what_is_there(store):
    store.save(1, fill(), {})
    (store.root / "latest").write_text("step-000009\n")
    with pytest.raises(CheckpointError, match="step-000009") as caught:
        store.latest()
    assert "write step-000001 into" in caught.value.remedy


KILLED = """
import os, signal, sys
from pathlib import Path
from align.checkpoint.store import CheckpointStore

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

def write(folder):
    (folder / "weights").write_text("second")

store = CheckpointStore(Path(sys.argv[1]), keep=2, recipe_hash="abc")
setattr(Path, sys.argv[2], die)
store.save(2, write, {"step": 2})
"""


def kill_at(method: str, root: Path) -> None:
    """Save step 2 in another process that is killed where it calls ``Path.<method>``."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), method], check=False)
    assert done.returncode == -signal.SIGKILL


def test_killed_before_the_rename(store):
    store.save(1, fill("first"), {})
    kill_at("rename", store.root)
    assert ".tmp-step-000002" in names(store)
    found = store.latest()
    assert found.step == 1
    found.verify()
    store.save(2, fill(), {})
    assert names(store) == ["latest", "step-000001", "step-000002"]


def test_killed_between_rename_and_pointer(store):
    store.save(1, fill("first"), {})
    kill_at("replace", store.root)
    found = store.latest()
    assert found.step == 1
    store.save(2, fill("again"), {})
    found = store.latest()
    assert found.step == 2
    found.verify()
    assert names(store) == ["latest", "step-000001", "step-000002"]


def test_killed_in_the_first_save_of_all(store):
    kill_at("rename", store.root)
    assert store.latest() is None
    kill_at("replace", store.root)  # renamed, but no pointer yet
    assert store.latest().step == 2
