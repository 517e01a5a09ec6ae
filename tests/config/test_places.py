"""Run directories that cannot be are refused before anything starts."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from align.cli.main import app
from align.config.load import check, set_key
from align.config.places import INSIDE_BYTES, NAME_BYTES, PATH_BYTES, check_place
from align.config.recipe import EvalRecipe, GrpoRecipe, PipelineRecipe, SftRecipe
from align.config.yaml12 import dump
from align.errors import RecipeError

SFT: dict[str, Any] = {
    "kind": "sft",
    "name": "tiny",
    "policy": {"path": "model"},
    "data": {"path": "rows.jsonl"},
}
PIPELINE: dict[str, Any] = {"kind": "pipeline", "name": "p", "stages": {"one": {"recipe": "sft.yaml"}}}
LONG = "x" * 100 + "/"


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        ({"run_dir": "runs/a\0b"}, "run_dir", "NUL"),
        ({"run_dir": "runs/" + "a" * 300}, "run_dir", "has 300 bytes"),
        ({"run_dir": "runs/" + "a" * 256 + "/b"}, "run_dir", "has 256 bytes"),
        ({"run_dir": "runs/" + "ä" * 128}, "run_dir", "has 256 bytes"),
        ({"run_dir": "runs/\ud800"}, "run_dir", "is no character"),
        ({"name": "a" * 300}, "name", "has 300 bytes"),
        ({"run_dir": "/" + LONG * 42}, "run_dir", "the path has"),
    ],
)
def test_a_path_that_no_file_system_takes(settings: dict[str, Any], key: str, message: str) -> None:
    for tree, kind in ((SFT, SftRecipe), (PIPELINE, PipelineRecipe)):
        with pytest.raises(RecipeError, match=message) as caught:
            check(tree | settings, file="r.yaml", kind=kind)
        assert (caught.value.file, caught.value.key) == ("r.yaml", key)
        assert caught.value.remedy


def test_a_stage_is_a_directory_too() -> None:
    with pytest.raises(RecipeError, match="has 300 bytes") as caught:
        check(PIPELINE | {"stages": {"s" * 300: {"recipe": "a.yaml"}}}, file="p.yaml", kind=PipelineRecipe)
    assert caught.value.key == f"stages.{'s' * 300}"


@pytest.mark.parametrize("name", ["a" * NAME_BYTES, "runs/äöü", "a b/c"])
def test_a_possible_path_is_taken(name: str) -> None:
    assert check(SFT | {"run_dir": name}, file="r.yaml", kind=SftRecipe).directory == Path(name)


def test_the_longest_path_leaves_room_for_the_files_of_a_run(tmp_path: Path) -> None:
    inside = "checkpoints/step-00000001/model-00001-of-00001.safetensors"
    assert len(inside) < INSIDE_BYTES
    room = PATH_BYTES - INSIDE_BYTES
    longest = ("/" + "x" * 99) * (room // 100) + "/" + "y" * (room % 100 - 1)
    assert len(longest) == room
    check(SFT | {"run_dir": longest}, file="r.yaml", kind=SftRecipe)
    with pytest.raises(RecipeError, match="the path has 3936 bytes"):
        check(SFT | {"run_dir": longest + "y"}, file="r.yaml", kind=SftRecipe)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    check_place(tmp_path / "new" / "run", key="run_dir", file="r.yaml")
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RecipeError, match="is no directory") as caught:
            check_place(place, key="run_dir", file="r.yaml")
        assert (caught.value.file, caught.value.key) == ("r.yaml", "run_dir")


@pytest.mark.parametrize("command", ["sft", "run"])
def test_a_dry_run_looks_for_its_place(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("")
    tree = SFT if command == "sft" else PIPELINE
    (tmp_path / "sft.yaml").write_text(dump(SFT))
    (tmp_path / "r.yaml").write_text(dump(tree | {"run_dir": str(tmp_path / "file" / "run")}))
    result = CliRunner().invoke(app, [command, str(tmp_path / "r.yaml"), "--dry-run"])
    assert result.exit_code == 2
    assert "run_dir: the run directory" in result.output
    assert "is no directory" in result.output


def test_a_directory_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    with pytest.raises(RecipeError, match="may not be written to"):
        check_place(tmp_path / "run", key="name", file="r.yaml")


@pytest.mark.parametrize("place", ["/proc/x", "/proc/x/y", "/sys/x", "/sys/kernel/run", "/proc/self/fd/x"])
def test_a_file_system_that_takes_no_files(place: str) -> None:
    with pytest.raises(RecipeError, match="cannot be made") as caught:
        check_place(Path(place), key="run_dir", file="r.yaml")
    assert (caught.value.file, caught.value.key) == ("r.yaml", "run_dir")
    assert caught.value.remedy


def test_a_read_only_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", refused)
    with pytest.raises(RecipeError, match=r"takes no files \(Read-only file system\)"):
        check_place(tmp_path / "run", key="run_dir", file="r.yaml")


def test_the_trial_leaves_nothing_behind(tmp_path: Path) -> None:
    check_place(tmp_path / "run", key="run_dir")
    assert not any(tmp_path.iterdir())


GRPO: dict[str, Any] = {
    **SFT,
    "kind": "grpo",
    "rewards": {"terms": {"right": {"function": "exact_answer"}, "liked": {"model": "rm"}}},
}
EVAL: dict[str, Any] = {
    "kind": "eval",
    "name": "e",
    "policy": {"path": "model"},
    "eval": {"parts": {"sums": {"path": "rows.jsonl", "metric": "exact_answer"}}},
}
READ = [
    (SFT, SftRecipe, "data.path"),
    (SFT, SftRecipe, "data.parts.train.path"),
    (SFT, SftRecipe, "data.parts.train.subset"),
    (SFT, SftRecipe, "data.parts.train.split"),
    (SFT, SftRecipe, "policy.path"),
    (SFT, SftRecipe, "policy.tokenizer"),
    (SFT, SftRecipe, "policy.chat_template"),
    (GRPO, GrpoRecipe, "rewards.terms.right.function"),
    (GRPO, GrpoRecipe, "rewards.terms.liked.model"),
    (EVAL, EvalRecipe, "eval.path"),
    (EVAL, EvalRecipe, "eval.parts.sums.path"),
    (EVAL, EvalRecipe, "eval.parts.sums.metric"),
    (PIPELINE, PipelineRecipe, "stages.one.recipe"),
]


@pytest.mark.parametrize(("tree", "kind", "key"), READ, ids=[key for _, _, key in READ])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a" * 300 + ".jsonl", "has 306 bytes"),
        ("a\0b", "NUL"),
        ("a\ud800", "no character"),
        ("/" + LONG * 42, "bytes, and Linux takes 4095"),
    ],
)
def test_what_is_read_has_a_possible_path(
    tree: dict[str, Any], kind: type[Any], key: str, path: str, message: str
) -> None:
    changed = json.loads(json.dumps(tree))
    set_key(changed, key.split("."), path, origin=key)
    with pytest.raises(RecipeError, match=message) as caught:
        check(changed, file="r.yaml", kind=kind)
    assert (caught.value.file, caught.value.key) == ("r.yaml", key)
    assert caught.value.remedy


def test_what_is_read_does_not_lie_below_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rows.jsonl", "openai"):
        (tmp_path / name).write_text("{}")
    for path in ("rows.jsonl/x", f"{tmp_path}/rows.jsonl/a/b.jsonl", "openai/a/b"):
        with pytest.raises(RecipeError, match="is no directory") as caught:
            check({**SFT, "data": {"path": path}}, file="r.yaml", kind=SftRecipe)
        assert caught.value.key == "data.path"
    for path in ("rows.jsonl", "openai/gsm8k", "gpt2", "not/yet/there", str(tmp_path / "new.jsonl")):
        check({**SFT, "data": {"path": path}}, file="r.yaml", kind=SftRecipe)


@pytest.mark.parametrize("command", ["sft", "plan", "inspect-data", "report", "export", "chat", "run"])
def test_a_long_argument_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGN_DEBUG", "")
    more = ["--out", "out"] if command == "export" else []
    done = CliRunner().invoke(app, [command, "./" + "a" * 300, *more], prog_name="align")
    assert done.exit_code == 2, done.output
    assert "bytes" in done.output
    assert "this is a bug" not in done.output
