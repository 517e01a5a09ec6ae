"""A failing run leaves a checkpoint of the last finished step. The loop, the clock and the store are real;
policy, engine and rewards are counters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from align.checkpoint.store import CheckpointStore
from align.config.recipe import GrpoRecipe
from align.errors import AlignError, EngineError, RewardError, SyncError
from align.report.timing import StageClock
from align.train.grpo.last_step import LastStep
from align.train.grpo.loop import grpo
from align.train.grpo.parts import Marks, Parts
from align.types import Completion, Group, Prompt, SampleScore, StepStats, SyncReport, TrainBatch

RECIPE = GrpoRecipe.model_validate(
    {
        "kind": "grpo",
        "name": "toy",
        "policy": {"path": "toy"},
        "data": {"parts": {"a": {"path": "a.jsonl"}}},
        "rewards": {"terms": {"a": {"function": "length"}}},
        "grpo": {"steps": 5, "prompts_per_step": 2, "minibatches": 2, "group_size": 2, "beta": 0},
        "checkpoint": {"every": 2},
    }
)


class Toy:
    """Policy, rollout, rewards, sync and sampler in one: each counts what it did, and one of them fails."""

    def __init__(self, fails_in: str, at: int, error: Exception) -> None:
        self.fails_in, self.at, self.error = fails_in, at, error
        self.step = self.drawn = self.updates = self.version = self.said = 0

    def _do(self, what: str) -> None:
        if (what, self.step) == (self.fails_in, self.at):
            raise self.error

    def next(self, count: int) -> list[Prompt]:
        self.step += 1
        self.drawn += count
        return [Prompt(f"a/{self.drawn + i}", (), [1]) for i in range(count)]

    def sample(
        self, prompts: Sequence[Prompt], size: int, step: int, carried: Sequence[Group] = ()
    ) -> Iterator[Group]:
        self._do("sample")
        for prompt in prompts:
            yield Group(
                prompt, [Completion(prompt.id, i, [1], [0.0], "", "stop", step, seed=0) for i in range(size)]
            )

    def submit(self, group: Group) -> None:
        self.groups = [*getattr(self, "groups", []), group]

    def collect(self) -> list[SampleScore]:
        self._do("collect")
        groups, self.groups = self.groups, []
        return [SampleScore(each.prompt.id, i, float(i), {}) for each in groups for i in range(2)]

    def metrics(self) -> dict[str, float]:
        return {}

    def update(self, batch: TrainBatch) -> dict[str, float]:
        self.updates += 1
        if self.updates % 2 == 0:  # the second minibatch
            self._do("update")
        return {}

    def logprobs(self, batch: TrainBatch) -> list[list[float]]:
        return [[0.0]] * len(batch)

    ref_logprobs = logprobs

    def push(self) -> SyncReport:
        self._do("push")
        self.version += 1
        return SyncReport(self.version, 1, 1, 0.0, 0.0)

    def verify(self) -> None:
        self._do("verify")

    @property
    def held(self) -> int:
        return self.version

    def after_step(self, stats: StepStats) -> None:
        self._do("report")

    def save(self, folder: Path) -> None:
        self._do("save")
        (folder / "weights").write_text(str(self.updates))


Run = Callable[..., tuple[int, int, dict[str, Any]] | None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run until the failure; (step, updates in the weights, state) of the checkpoint left, if any."""

    def run(fails_in: str, at: int, error: AlignError, every: int = 100) -> tuple[int, int, Any] | None:
        toy = Toy(fails_in, at, error)
        said: list[str] = []
        marks = Marks(lambda: {"drawn": toy.drawn})
        parts = Parts(toy, toy, toy, toy, toy, StageClock(), str, marks.note)

        def state(step: int) -> dict[str, Any]:
            return {"step": step, "version": toy.version, **marks.at(step)}

        reporter = SimpleNamespace(message=said.append)
        job: Any = SimpleNamespace(parts=parts, policy=toy, sync=toy, reporter=reporter, state=state)
        store = CheckpointStore(tmp_path / "checkpoints", 9, "hash")

        def train() -> None:
            with LastStep(job, store, 0) as last:
                for step in grpo(RECIPE, parts, 0, toy.after_step):
                    last.finished(step)
                    if step % every == 0:
                        last.save()

        with pytest.raises(type(error)) as caught:
            train()
        assert caught.value is error
        found = store.latest()
        if found is None:
            return None
        return (
            found.step,
            int((found.path / "weights").read_text()),
            json.loads((found.path / "state.json").read_text()),
        )

    return run


BOOM = RewardError("the budget is spent")


@pytest.mark.parametrize("where", ["sample", "collect"])
def test_before_the_update_the_step_before_is_saved_with_its_own_cursor(run: Run, where: str) -> None:
    assert run(where, 4, BOOM) == (3, 6, {"step": 3, "drawn": 6, "version": 3})


def test_nothing_is_saved_twice_and_nothing_before_the_first_step(run: Run) -> None:
    assert run("collect", 1, BOOM) is None
    assert run("collect", 3, BOOM, every=2) == (2, 4, {"step": 2, "drawn": 4, "version": 2})


def test_a_push_that_fails_leaves_weights_that_nobody_verified_and_saves_nothing(run: Run) -> None:
    assert run("push", 3, SyncError("checksums differ")) is None
    assert run("push", 5, SyncError("checksums differ"), every=2) == (
        4,
        8,
        {"step": 4, "drawn": 8, "version": 4},
    )


def test_weights_that_fail_when_they_are_verified_to_be_saved_are_not(run: Run) -> None:
    """With ``sync.every`` above 1 a push is not verified each time."""
    assert run("verify", 4, SyncError("trainer and engine disagree"), every=2) == (
        2,
        4,
        {"step": 2, "drawn": 4, "version": 2},
    )


def test_a_report_that_fails_ends_a_whole_step(run: Run) -> None:
    assert run("report", 3, EngineError("the engine died")) == (
        3,
        6,
        {"step": 3, "drawn": 6, "version": 3},
    )


def test_an_update_that_breaks_off_halfway_is_not_saved(run: Run) -> None:
    assert run("update", 3, EngineError("out of memory"), every=2) == (
        2,
        4,
        {"step": 2, "drawn": 4, "version": 2},
    )


def test_a_policy_that_cannot_save_does_not_hide_the_error(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Toy, "save", lambda *_: 1 / 0)
    assert run("collect", 3, BOOM) is None
    assert "no checkpoint could be saved after the failure" in caplog.text
