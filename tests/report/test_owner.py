"""One process at a time works in a run directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from align.errors import RecipeError
from align.report import owner
from align.report.owner import FILES, RECORD, Owner
from align.report.run_directory import RunDirectory

HOLD = """
import sys, time
from pathlib import Path
from align.errors import RecipeError
from align.report.run_directory import RunDirectory

while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
try:
    run = RunDirectory.create(sys.argv[1], {"name": "x"})
except RecipeError as error:
    print("refused", error.message, flush=True)
else:
    print("runs", flush=True)
    sys.stdin.read()
    run.close()
"""


def start(path: Path, signal_file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(signal_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait(20)


@pytest.fixture
def living(tmp_path: Path):
    """The directory of a run that another process has begun, and that process."""
    (tmp_path / "go").touch()
    process = start(tmp_path / "run", tmp_path / "go")
    assert told(process) == "runs"
    yield tmp_path / "run", process
    process.kill()
    process.wait(20)


def test_of_several_starts_at_the_same_moment_one_runs(tmp_path: Path) -> None:
    processes = [start(tmp_path / "run", tmp_path / "go") for _ in range(5)]
    time.sleep(1.0)  # all wait for the signal
    (tmp_path / "go").touch()
    found = [told(process) for process in processes]
    assert found.count("runs") == 1
    for each in found:
        assert each == "runs" or "under way" in each or "exists already" in each
    for process in processes:
        end(process)
    assert not FILES & set(os.listdir(tmp_path / "run"))


def test_a_living_run_is_not_resumed(living) -> None:
    path, process = living
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(
        RecipeError, match=f"under way in this directory: process {process.pid} on "
    ) as caught:
        RunDirectory.create(path, {"name": "x"}, resume=True)
    assert caught.value.key == "name"
    assert f"kill -INT {process.pid}" in str(caught.value.remedy)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    end(process)
    RunDirectory.create(path, {"name": "x"}, resume=True).close()


def test_a_killed_run_is_taken_over(living) -> None:
    path, process = living
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert RECORD in os.listdir(path)
    run = RunDirectory.create(path, {"name": "x"}, resume=True)
    assert json.loads((path / RECORD).read_text())["pid"] == os.getpid()
    run.close()
    run.close()
    assert not FILES & set(os.listdir(path))


def test_a_number_that_another_process_got_is_no_owner(tmp_path: Path) -> None:
    mine = Owner.take(tmp_path)
    record = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps({**record, "started": record["started"] - 100}))
    Owner.take(tmp_path).release()
    mine.release()


def test_of_another_machine_the_heartbeat_counts(tmp_path: Path) -> None:
    Owner.take(tmp_path)
    file = tmp_path / RECORD
    file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "other", "host": "far"}))
    with pytest.raises(RecipeError, match="on far, since") as caught:
        Owner.take(tmp_path)
    assert "on far, or choose" in str(caught.value.remedy)
    assert "try again in 60 s" in str(caught.value.remedy)
    silent = time.time() - owner.SILENT_SECONDS - 1
    os.utime(file, (silent, silent))
    Owner.take(tmp_path).release()


def test_a_record_is_touched_while_its_process_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.02)
    mine = Owner.take(tmp_path)
    os.utime(tmp_path / RECORD, (0, 0))
    limit = time.monotonic() + 10
    while (tmp_path / RECORD).stat().st_mtime == 0:
        assert time.monotonic() < limit
        time.sleep(0.01)
    mine.release()


@pytest.mark.parametrize("left", ["", "{}", "[]", '{"pid": 1'])
def test_what_a_killed_writer_left_is_no_owner(left: str, tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(left)
    Owner.take(tmp_path).release()


def test_where_a_run_cannot_begin_nothing_stays_behind(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(RecipeError):
            RunDirectory.create(tmp_path, {"name": "x"}, resume=resume)
        assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_file_system_without_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "no locks available")

    monkeypatch.setattr(owner.fcntl, "flock", refuse)
    mine = Owner.take(tmp_path)
    with pytest.raises(RecipeError, match="under way"):
        Owner.take(tmp_path)
    mine.release()
    assert not os.listdir(tmp_path)
