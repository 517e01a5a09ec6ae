"""Stages in order, each in a process of its own.

Threads, memory and the global state of vLLM and Ray of one stage cannot disturb the next.
``pipeline.json`` in the pipeline's directory remembers what is finished.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from align.config.recipe import EvalRecipe, PipelineRecipe
from align.errors import AlignError, RecipeError
from align.report.owner import Owner
from align.train.pipeline.stages import Stage

STATE = "pipeline.json"
INTERRUPTED = 130
"""Exit status of a command that Ctrl-C stopped."""

Launch = Callable[[Sequence[str]], int]
"""Runs `align` with these arguments and returns its exit status."""


def run_pipeline(
    pipeline: PipelineRecipe,
    stages: Sequence[Stage],
    *,
    resume: bool,
    say: Callable[[str], None],
    launch: Launch | None = None,
) -> State:
    """Run the stages in order, skipping those that are finished.

    Args:
        pipeline: for its directory.
        stages: from :func:`align.train.pipeline.stages.load_pipeline`.
        resume: go on with the pipeline that is in the directory.
        say: shows one line of progress.
        launch: how a stage is started; default: a process of its own.

    Returns:
        The state after the last stage.

    Raises:
        RecipeError: the directory holds a pipeline and ``resume`` is off, or the other way round, or
            a finished stage has another recipe now, or another process runs the pipeline.
        AlignError: a stage failed; the error carries its exit status.
        KeyboardInterrupt: a stage was interrupted.
    """
    pipeline.directory.mkdir(parents=True, exist_ok=True)
    owner = Owner.take(pipeline.directory)
    try:
        return _run(pipeline, stages, resume, say, launch or align_process)
    finally:
        owner.release()


def _run(
    pipeline: PipelineRecipe,
    stages: Sequence[Stage],
    resume: bool,
    say: Callable[[str], None],
    launch: Launch,
) -> State:
    state = State(pipeline.directory)
    if state.stages and not resume:
        raise RecipeError(
            "this pipeline has run already",
            file=pipeline.directory,
            key="name",
            remedy="go on with --resume (finished stages are skipped), choose another name=…, or remove it",
        )
    going_on = resume
    for number, stage in enumerate(stages, start=1):
        label = f"stage {number}/{len(stages)} {stage.name} ({stage.kind})"
        if going_on and state.finished(stage):
            say(f"{label}: finished earlier, skipped")
            continue
        going_on = False  # what follows was made from an older version of this stage
        _run_stage(stage, state, label, say, launch)
    return state


def _run_stage(stage: Stage, state: State, label: str, say: Callable[[str], None], launch: Launch) -> None:
    again = False
    if stage.name in state.stages and stage.directory.exists():
        saved = (stage.directory / "checkpoints" / "latest").is_file()
        again = (
            saved
            and state.stages[stage.name]["state"] == "running"
            and not isinstance(stage.recipe, EvalRecipe)
        )
        if not again:  # ours, and nothing in it to go on from
            shutil.rmtree(stage.directory)
    before = state.seconds(stage) if again else 0.0
    state.record(stage, "running", before)
    say(f"{label}: {'continued' if again else 'started'}")
    start = time.monotonic()
    status = launch(stage.command(resume=again))
    seconds = time.monotonic() - start
    state.record(stage, "finished" if status == 0 else "running", before + seconds)
    if status == INTERRUPTED:
        say(f"{label}: interrupted; the same command with --resume goes on from here")
        raise KeyboardInterrupt
    if status:
        error = AlignError(
            f"stage {stage.name!r} failed with exit status {status}; its own message is above",
            file=stage.directory,
            remedy="mend the cause, then give the same command with --resume: finished stages are skipped",
        )
        error.exit_code = status if status in {1, 2} else 1
        raise error
    say(f"{label}: finished in {seconds:.0f} s")


def align_process(arguments: Sequence[str]) -> int:
    """Run `align` in a process of its own with this one's input and output.

    The process gets its own process group: Ctrl-C and termination reach it once, from here, and
    this process waits until it has saved itself.

    Returns:
        Its exit status; 128 + signal number when a signal ended it.
    """
    return run_forwarding([sys.executable, "-m", "align.cli.main", *arguments])


def run_forwarding(command: Sequence[str]) -> int:
    """Run a command, passing SIGINT, SIGTERM and SIGHUP on to it. Call from the main thread."""
    process = subprocess.Popen(command, process_group=0)

    def forward(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, forward) for number in signals}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


class State:
    """``pipeline.json``: which stages have started and finished, with which recipe, and their wall time."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / STATE
        self.stages: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            try:
                self.stages = json.loads(self.path.read_text(encoding="utf-8"))["stages"]
            except (ValueError, KeyError, TypeError) as error:
                raise RecipeError(
                    "the pipeline's state cannot be read",
                    file=self.path,
                    remedy=f"remove {directory} and run the pipeline again",
                ) from error

    def finished(self, stage: Stage) -> bool:
        """Whether the stage ran to its end and its directory is still there.

        Raises:
            RecipeError: it did, with another recipe.
        """
        entry = self.stages.get(stage.name, {})
        if entry.get("state") != "finished" or not stage.directory.is_dir():
            return False
        changed = list(_differences(_decisive(entry["resolved"]), _decisive(stage.resolved)))
        if changed:
            key, before, now = changed[0]
            raise RecipeError(
                f"stage {stage.name!r} is finished, with {before!r} where the recipe now says {now!r}",
                file=stage.file,
                key=key,
                remedy="undo the change, or start another pipeline with name=…",
            )
        return True

    def record(self, stage: Stage, state: str, seconds: float) -> None:
        """Write the state of one stage; the file is replaced in one go."""
        self.stages[stage.name] = {"state": state, "seconds": round(seconds, 3), "resolved": stage.resolved}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".tmp")
        aside.write_text(json.dumps({"stages": self.stages}, indent=1), encoding="utf-8")
        aside.replace(self.path)

    def seconds(self, stage: Stage) -> float:
        """Wall time spent on a stage so far, interrupted attempts included."""
        return float(self.stages.get(stage.name, {}).get("seconds", 0.0))


def _decisive(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a stage's result: not how it reported, saved itself, or on which machines."""
    return {key: value for key, value in resolved.items() if key not in {"report", "cluster", "checkpoint"}}


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, old and new value of everything that differs."""
    for key in [*now, *(key for key in before if key not in now)]:
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from ((f"{key}.{rest}", was, is_) for rest, was, is_ in _differences(old, new))
        elif old != new:
            yield key, old, new


def measurements(stage: Stage) -> Iterator[tuple[str, dict[str, float]]]:
    """The held-out results of a finished stage: (label, metrics).

    An evaluation gives one, a training run its first and its last. Keys are as in
    :func:`align.train.evaluate.evaluate`.
    """
    found: list[dict[str, float]] = []
    file = stage.directory / "metrics.jsonl"
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        values = {key: value for key, value in json.loads(line).items() if key.startswith("eval/")}
        if values:
            found.append(values)
    if len(found) == 1:
        yield stage.name, found[0]
    elif found:
        yield f"{stage.name}: start", found[0]
        yield f"{stage.name}: end", found[-1]
