"""Pipelines: everything is checked first, stages run in order, and what is finished is not repeated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from align.config.load import load_recipe
from align.config.recipe import GrpoRecipe, SftRecipe
from align.errors import AlignError, RecipeError, RewardError
from align.train.pipeline.run import INTERRUPTED, State, measurements, run_forwarding, run_pipeline
from align.train.pipeline.stages import Stage, load_pipeline

SFT = "kind: sft\nname: one\npolicy: {path: ./model}\ndata: {path: ./rows.jsonl}\n"
GRPO = """
kind: grpo
name: two
seed: 7
policy: {path: runs/other}
data: {path: ./rows.jsonl}
rewards: {terms: {right: {function: exact_answer}}}
"""
EVAL = """
kind: eval
name: three
policy: {path: runs/other}
eval: {parts: {held: {path: ./rows.jsonl, metric: exact_answer}}}
"""
PIPELINE = """
kind: pipeline
name: chain
seed: 3
stages:
  sft: {recipe: sft.yaml}
  grpo:
    recipe: recipes/grpo.yaml
    set:
      policy.path: ${sft}
      grpo.steps: 5
  check:
    recipe: eval.yaml
    set:
      policy.path: ${grpo}
      policy.tokenizer: ${sft}/final
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a pipeline of three stages."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    for name, text in {
        "pipeline.yaml": PIPELINE,
        "sft.yaml": SFT,
        "recipes/grpo.yaml": GRPO,
        "eval.yaml": EVAL,
        "rows.jsonl": '{"prompt": "1+1", "completion": "2"}\n',
        "recipes/rows.jsonl": '{"prompt": "1+1", "answer": "2"}\n',
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "model").mkdir()
    return tmp_path


class Launcher:
    """Stands in for the stages' processes: makes their directories, and fails where told to."""

    def __init__(self, **status: int) -> None:
        self.status = status
        self.commands: list[list[str]] = []

    def __call__(self, arguments: Sequence[str]) -> int:
        self.commands.append(list(arguments))
        (directory,) = [
            Path(text.removeprefix("run_dir=")) for text in arguments if text.startswith("run_dir=")
        ]
        if "--resume" not in arguments:
            assert not directory.exists()
        directory.mkdir(parents=True, exist_ok=True)
        return self.status.get(directory.name, 0)

    @property
    def stages(self) -> list[str]:
        return [Path(command[-1 - ("--resume" in command)]).name for command in self.commands]


def run(launch: Launcher, *overrides: str, resume: bool = False) -> tuple[State, list[Stage]]:
    pipeline, stages = load_pipeline("pipeline.yaml", overrides)
    return run_pipeline(pipeline, stages, resume=resume, say=lambda _: None, launch=launch), stages


# Resolving


def test_stages_get_directories_references_seeds_and_settings(folder: Path) -> None:
    _, (sft, grpo, check) = load_pipeline("pipeline.yaml")
    assert [stage.kind for stage in (sft, grpo, check)] == ["sft", "grpo", "eval"]
    assert sft.directory == Path("runs/chain/sft")
    assert grpo.recipe.policy.path == "runs/chain/sft"
    assert check.recipe.policy.path == "runs/chain/grpo"
    assert check.recipe.policy.tokenizer == "runs/chain/sft/final"
    assert isinstance(grpo.recipe, GrpoRecipe)
    assert grpo.recipe.grpo.steps == 5
    assert (sft.recipe.seed, grpo.recipe.seed, check.recipe.seed) == (3, 7, 3)


def test_the_command_of_a_stage_gives_the_same_recipe(folder: Path) -> None:
    """What the stage's process reads is what was checked."""
    _, stages = load_pipeline(
        "pipeline.yaml", ["grpo.data.parts={a: {where: \"x == 'off'\", system: '1e5'}}"]
    )
    command = stages[1].command()
    assert command[:2] == ["grpo", "recipes/grpo.yaml"]
    assert load_recipe(command[1], command[2:], kind=GrpoRecipe) == stages[1].recipe
    assert stages[0].command(resume=True)[-1] == "--resume"


def test_overrides_reach_stages_and_the_pipeline(folder: Path) -> None:
    overrides = ["sft.optim.lr=1e-3", "name=other", "grpo.grpo.steps=9", "seed=11", "sft.seed=5"]
    pipeline, (sft, grpo, _) = load_pipeline("pipeline.yaml", overrides)
    assert pipeline.name == "other"
    assert isinstance(sft.recipe, SftRecipe)
    assert sft.recipe.optim.lr == 1e-3
    assert sft.recipe.seed == 5
    assert isinstance(grpo.recipe, GrpoRecipe)
    assert grpo.recipe.grpo.steps == 9
    assert grpo.directory == Path("runs/other/grpo")


def test_an_override_may_refer_to_a_stage(folder: Path) -> None:
    _, stages = load_pipeline("pipeline.yaml", ["check.policy.path=${sft}/checkpoints/step-000010"])
    assert stages[2].recipe.policy.path == "runs/chain/sft/checkpoints/step-000010"


def test_a_pipeline_works_from_any_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    _, stages = load_pipeline("../pipeline.yaml")
    assert stages[0].recipe.policy.path == str(folder / "model")


def edit(folder: Path, old: str, new: str, file: str = "pipeline.yaml") -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        ("${sft}\n", "${sfd}\n", "stages.grpo.set.policy.path", "no earlier stage"),
        ("path: ${sft}\n", "path: ${check}\n", "stages.grpo.set.policy.path", "no earlier stage"),
        ("sft.yaml", "sfd.yaml", "stages.sft.recipe", "no such recipe"),
        ("grpo.steps: 5", "grpo.stops: 5", "stages.grpo.set.grpo.stops", "unknown key"),
        ("grpo.steps: 5", "grpo.steps: x", "stages.grpo.set.grpo.steps", "whole number"),
        ("grpo.steps: 5", "run_dir: x", "stages.grpo.set.run_dir", "inside the pipeline"),
        ("  sft: {recipe", "  seed: {recipe", "stages.seed", "cannot name a stage"),
        ("  sft: {recipe", "  a b: {recipe", "stages.a b", "cannot name a stage"),
        ("sft.yaml", "pipeline.yaml", "kind", "cannot be of kind 'pipeline'"),
    ],
)
def test_faults_of_the_pipeline(folder: Path, old: str, new: str, key: str, message: str) -> None:
    _expect(folder, "pipeline.yaml", old, new, key, message)


@pytest.mark.parametrize(
    ("file", "old", "new", "key", "message"),
    [
        ("sft.yaml", "kind: sft", "kind: sff", "kind", "cannot be of kind 'sff'"),
        ("sft.yaml", "data:", "date:", "date", "unknown key"),
        ("sft.yaml", "./rows.jsonl", "./raws.jsonl", "data.path", "no such file"),
        ("sft.yaml", "./model", "./modal", "policy.path", "no such file"),
        ("eval.yaml", "./rows.jsonl", "./raws.jsonl", "eval.parts.held.path", "no such file"),
    ],
)
def test_faults_of_a_stage(folder: Path, file: str, old: str, new: str, key: str, message: str) -> None:
    _expect(folder, file, old, new, key, message)


def _expect(folder: Path, file: str, old: str, new: str, key: str, message: str) -> None:
    edit(folder, old, new, file)
    launch = Launcher()
    with pytest.raises(RecipeError) as caught:
        run(launch)
    assert (Path(caught.value.file or "").name, caught.value.key) == (file, key)
    assert message in caught.value.message
    assert caught.value.remedy
    assert launch.commands == []


def test_reward_functions_of_later_stages_are_found_first(folder: Path) -> None:
    edit(folder, "exact_answer", "exactly_answer", "recipes/grpo.yaml")
    with pytest.raises(RewardError) as caught:
        load_pipeline("pipeline.yaml")
    assert caught.value.key == "rewards.terms.right.function"


@pytest.mark.parametrize(
    ("override", "remedy"),
    [("sfd.optim.lr=1", "did you mean 'sft'?"), ("nonsense=1", "its stages: sft, grpo, check")],
)
def test_an_override_for_no_stage(folder: Path, override: str, remedy: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_pipeline("pipeline.yaml", [override])
    assert caught.value.remedy == remedy


# Running


def test_stages_run_in_order_and_are_recorded(folder: Path) -> None:
    launch = Launcher()
    state, _ = run(launch)
    assert launch.stages == ["sft", "grpo", "check"]
    saved = json.loads((folder / "runs/chain/pipeline.json").read_text())["stages"]
    assert [entry["state"] for entry in saved.values()] == ["finished"] * 3
    assert saved == state.stages


def test_a_second_run_is_refused_without_resume(folder: Path) -> None:
    run(Launcher())
    launch = Launcher()
    with pytest.raises(RecipeError) as caught:
        run(launch)
    assert caught.value.remedy is not None
    assert "--resume" in caught.value.remedy
    assert launch.commands == []


def test_a_failed_stage_stops_the_pipeline_and_resume_starts_it_over(folder: Path) -> None:
    launch = Launcher(grpo=1)
    with pytest.raises(AlignError) as caught:
        run(launch)
    assert caught.value.exit_code == 1
    assert "'grpo' failed with exit status 1" in caught.value.message
    assert launch.stages == ["sft", "grpo"]
    again = Launcher()
    run(again, resume=True)
    assert again.stages == ["grpo", "check"]
    assert "--resume" not in again.commands[0]


def test_the_exit_status_of_bad_input_is_passed_on(folder: Path) -> None:
    with pytest.raises(AlignError) as caught:
        run(Launcher(sft=2))
    assert caught.value.exit_code == 2


def test_an_interrupted_stage_with_a_checkpoint_is_continued(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Launcher(grpo=INTERRUPTED))
    checkpoints = folder / "runs/chain/grpo/checkpoints"
    checkpoints.mkdir()
    (checkpoints / "latest").write_text("step-000002")
    again = Launcher()
    run(again, resume=True)
    assert again.stages == ["grpo", "check"]
    assert again.commands[0][-1] == "--resume"
    assert "--resume" not in again.commands[1]


def test_wall_time_of_a_continued_stage_adds_up(folder: Path) -> None:
    def slow(arguments: Sequence[str]) -> int:
        time.sleep(0.2)
        checkpoints = Path("runs/chain/sft/checkpoints")
        checkpoints.mkdir(parents=True, exist_ok=True)
        (checkpoints / "latest").write_text("step-000001")
        return 0 if "--resume" in arguments or arguments[0] != "sft" else INTERRUPTED

    pipeline, stages = load_pipeline("pipeline.yaml")
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(pipeline, stages, resume=False, say=lambda _: None, launch=slow)
    state = run_pipeline(pipeline, stages, resume=True, say=lambda _: None, launch=slow)
    assert 0.4 <= state.seconds(stages[0]) < 1.5
    assert 0.2 <= state.seconds(stages[1]) < 0.4 + 0.5


def test_a_removed_stage_is_made_again_with_all_that_follow(folder: Path) -> None:
    run(Launcher())
    (folder / "runs/chain/grpo").rmdir()
    again = Launcher()
    run(again, resume=True)
    assert again.stages == ["grpo", "check"]


def test_a_finished_stage_with_another_recipe_is_an_error(folder: Path) -> None:
    run(Launcher())
    with pytest.raises(RecipeError) as caught:
        run(Launcher(), "sft.optim.lr=0.5", resume=True)
    assert caught.value.key == "optim.lr"
    assert "0.5" in caught.value.message


def test_reporting_may_change_between_attempts(folder: Path) -> None:
    run(Launcher())
    again = Launcher()
    run(again, "sft.report.console=false", resume=True)
    assert again.commands == []


def test_a_foreign_directory_is_never_removed(folder: Path) -> None:
    precious = folder / "runs/chain/sft"
    precious.mkdir(parents=True)
    (precious / "precious").write_text("mine")

    pipeline, stages = load_pipeline("pipeline.yaml")
    run_pipeline(pipeline, stages[:1], resume=False, say=lambda _: None, launch=lambda _: 0)
    assert (precious / "precious").read_text() == "mine"


def test_a_damaged_state_file(folder: Path) -> None:
    (folder / "runs/chain").mkdir(parents=True)
    (folder / "runs/chain/pipeline.json").write_text("{")
    with pytest.raises(RecipeError) as caught:
        run(Launcher(), resume=True)
    assert (caught.value.file or "").endswith("pipeline.json")


# What the stages measured


def test_measurements_of_an_evaluation_and_of_a_training_run(folder: Path) -> None:
    _, stages = load_pipeline("pipeline.yaml")
    training = [
        {"step": 0, "eval/a": 0.25},
        {"step": 1, "loss": 1.0},
        {"step": 2, "eval/a": 0.5},
        {"step": 3, "eval/a": 0.75},
    ]
    evaluation = [{"step": 0, "eval/a": 0.5, "eval/a/stderr": 0.1}]
    for stage, lines in zip(stages[1:], (training, evaluation), strict=True):
        stage.directory.mkdir(parents=True)
        (stage.directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert list(measurements(stages[0])) == []
    assert list(measurements(stages[1])) == [
        ("grpo: start", {"eval/a": 0.25}),
        ("grpo: end", {"eval/a": 0.75}),
    ]
    assert list(measurements(stages[2])) == [("check", {"eval/a": 0.5, "eval/a/stderr": 0.1})]


# Processes


def test_the_exit_status_comes_through() -> None:
    assert run_forwarding([sys.executable, "-c", "raise SystemExit(7)"]) == 7
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run_forwarding([sys.executable, "-c", killed]) == 128 + signal.SIGKILL


OUTER = """
import sys
from align.train.pipeline.run import run_forwarding
inner = '''
import signal, sys, time
signals = []
signal.signal(signal.SIGINT, lambda number, _: signals.append(number))
print("ready", flush=True)
while not signals:
    time.sleep(0.02)
time.sleep(0.3)  # saving
print("saved", len(signals), flush=True)
sys.exit(130)
'''
sys.exit(run_forwarding([sys.executable, "-c", inner]))
"""


def test_ctrl_c_reaches_the_stage_once_and_is_waited_for(repo_root: Path) -> None:
    """As a terminal does it: the signal goes to the whole foreground group."""
    process = subprocess.Popen(
        [sys.executable, "-c", OUTER],
        stdout=subprocess.PIPE,
        text=True,
        cwd=repo_root,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        process_group=0,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert rest == "saved 1\n"
    assert process.returncode == 130
