"""Partial rollouts in the loop. Loop, marks, metrics and the form in a checkpoint are real; the engine writes
completions of given lengths, and the others are counters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from align.config.recipe import GrpoRecipe
from align.errors import CheckpointError, RecipeError
from align.report.metrics import step_metrics
from align.report.timing import StageClock
from align.train.grpo.ahead import grpo_async
from align.train.grpo.experience import gather
from align.train.grpo.loop import grpo
from align.train.grpo.partial import check_partial, pack, unpack
from align.train.grpo.parts import Marks, Parts
from align.types import Completion, Group, Outcome, Prompt, SampleScore, StepStats, SyncReport, TrainBatch

BUDGET, LONGEST = 4, 10
POOL = 100


def recipe(grpo: dict[str, Any] | None = None, **rollout: Any) -> GrpoRecipe:
    grpo = {"steps": 6, "prompts_per_step": 2, "group_size": 2, "beta": 0} | (grpo or {})
    return GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "toy",
            "policy": {"path": "toy"},
            "data": {"parts": {"a": {"path": "a.jsonl"}}},
            "rewards": {"terms": {"a": {"function": "length"}}},
            "cluster": {"residency": "resident"},
            "grpo": grpo,
            "rollout": {"max_new_tokens": LONGEST, "partial_tokens": BUDGET} | rollout,
        }
    )


class Toy:
    """Prompts are numbered. ``lengths`` gives the lengths of a prompt's two completions, 1 by default.

    Token t of a completion written by version v is v, with log-probability -v - t / 100. The second
    completion gets reward 1, the first 0, except for prompts in ``useless``: all 0.
    """

    def __init__(
        self, lengths: Mapping[int, tuple[int, int]], useless: Sequence[int] = (), pool: int = POOL
    ) -> None:
        self.lengths, self.useless, self.pool = lengths, useless, pool
        self.drawn, self.version = 0, 1  # the first push has happened
        self.seeds: list[tuple[int, str, int]] = []
        self.submitted: list[Group] = []
        self.scored: list[Group] = []
        self.trained: list[TrainBatch] = []
        self.said: list[StepStats] = []
        self.carried: list[Group] = []
        self.marks = Marks(lambda: {"drawn": self.drawn, "carried": pack(self.carried)})

    def parts(self) -> Parts:
        return Parts(
            self,
            self,
            self,
            self,
            self,
            StageClock(),
            lambda tokens: "x" * len(tokens),
            self.marks.note,
            self.carried,
        )

    def prompts(self) -> list[Prompt]:
        return [Prompt(f"a/{number}", (), [1]) for number in range(self.pool)]

    def next(self, count: int) -> list[Prompt]:
        first, self.drawn = self.drawn, self.drawn + count
        return [self.prompts()[number % self.pool] for number in range(first, first + count)]

    def sample(
        self, prompts: Sequence[Prompt], size: int, step: int, carried: Sequence[Group] = ()
    ) -> Iterator[Group]:
        empty = [
            Group(prompt, [Completion(prompt.id, i, [], [], "", "cut", self.version, 0) for i in range(size)])
            for prompt in prompts
        ]
        for group in reversed([*carried, *empty]):  # they end in another order
            yield Group(group.prompt, [self._continued(each, step) for each in group.completions])

    def _continued(self, one: Completion, step: int) -> Completion:
        if one.finish_reason != "cut":
            return one
        self.seeds.append((step, one.prompt_id, one.sample_index))
        wanted = self.lengths.get(int(one.prompt_id[2:]), (1, 1))[one.sample_index]
        begun = len(one.token_ids)
        end = min(wanted, LONGEST, begun + BUDGET)
        spans = one.versions if begun else ()
        return replace(
            one,
            token_ids=one.token_ids + [self.version] * (end - begun),
            logprobs=one.logprobs + [-self.version - t / 100 for t in range(begun, end)],
            finish_reason="stop" if end == wanted else "length" if end == LONGEST else "cut",
            text="x" * end,
            versions=(*spans, (self.version, end - begun)),
        )

    def submit(self, group: Group) -> None:
        assert group.finished
        self.submitted.append(group)

    def collect(self) -> list[SampleScore]:
        groups, self.submitted = self.submitted, []
        self.scored += groups
        return [
            SampleScore(one.prompt_id, one.sample_index, reward, {"a": self._outcome(one, reward)})
            for group in groups
            for one in group.completions
            for reward in [float(one.sample_index * (int(one.prompt_id[2:]) not in self.useless))]
        ]

    @staticmethod
    def _outcome(one: Completion, reward: float) -> Outcome:
        return Outcome("ok", reward, steps=((len(one.text) // 2, 0.0), (len(one.text), reward)))

    def metrics(self) -> dict[str, float]:
        return {}

    def update(self, batch: TrainBatch) -> dict[str, float]:
        if not len(batch):
            return {}
        self.trained.append(batch)
        return {"train/loss": 0.0}

    def push(self) -> SyncReport:
        self.version += 1
        return SyncReport(self.version, 1, 1, 0.0, 0.0)

    def run(self, what: GrpoRecipe, start: int = 0) -> Iterator[int]:
        if what.grpo.schedule == "async":
            return grpo_async(what, self.parts(), start, self.said.append, StageClock())
        return grpo(what, self.parts(), start, self.said.append)


def ids(groups: Sequence[Group]) -> list[str]:
    return [group.prompt.id for group in groups]


def test_a_cut_group_waits_and_is_finished_by_the_next_weights() -> None:
    toy = Toy({0: (1, 6), 1: (2, 2)})
    assert list(toy.run(recipe({"steps": 2}))) == [1, 2]
    first, second = toy.said
    # Step 1: the second completion of a/0 is cut at 4 tokens, so the whole group waits.
    assert ids(first.groups) == ["a/1"]
    assert first.metrics["rollout/carried_share"] == 0.5
    assert len(first.scores) == 2
    # Step 2: a/0 is one of its two groups; its first completion stays as it was.
    assert ids(second.groups) == ["a/0", "a/2"]
    assert second.metrics["rollout/carried_share"] == 0
    one, other = second.groups[0].completions
    assert (one.versions, one.finish_reason) == (((1, 1),), "stop")
    assert (other.versions, other.weight_version) == (((1, 4), (2, 2)), 1)
    assert toy.seeds.count((2, "a/0", 0)) == 0
    assert toy.seeds.count((2, "a/0", 1)) == 1
    # Of 9 finished tokens 5 are one update old: 1 + 4 of a/0.
    assert second.metrics["rollout/staleness"] == pytest.approx(5 / 9)
    assert second.metrics["rollout/staleness_max"] == 1
    # Trained on once, each token with the log-probability it was sampled with.
    assert [batch.prompt_ids for batch in toy.trained] == [["a/1"] * 2, ["a/0", "a/0", "a/2", "a/2"]]
    assert toy.trained[1].rollout_logprobs[1] == [-1, -1.01, -1.02, -1.03, -2.04, -2.05]
    assert ids(toy.scored) == ["a/1", "a/2", "a/0"]
    assert toy.carried == []


def test_it_is_cut_again_until_the_longest_completion() -> None:
    toy = Toy({0: (1, 99)})
    list(toy.run(recipe({"steps": 3})))
    assert [stats.metrics["rollout/carried_share"] for stats in toy.said] == [0.5, 0.5, 0]
    last = toy.said[2].groups[0].completions[1]
    assert (last.versions, last.finish_reason) == (((1, 4), (2, 4), (3, 2)), "length")
    assert toy.said[2].metrics["rollout/staleness_max"] == 2


def test_a_step_without_a_finished_group_learns_nothing_and_goes_on() -> None:
    toy = Toy({0: (5, 5), 1: (6, 6)})
    list(toy.run(recipe({"steps": 2})))
    empty, after = toy.said
    assert (empty.groups, empty.scores, empty.advantages) == ([], [], [])
    metrics = step_metrics(empty)
    assert metrics["rollout/carried_share"] == 1
    assert metrics["rollout/trained_share"] == 0
    assert metrics["sync/version"] == 2
    assert not {"rollout/staleness", "train/loss", "completion/tokens_mean"} & metrics.keys()
    assert ids(after.groups) == ["a/0", "a/1"]
    assert toy.drawn == 2  # the carried ones fill the step
    assert len(toy.trained) == 1


def test_what_the_last_step_leaves_unfinished_is_counted_and_left_out() -> None:
    toy = Toy({3: (1, 9)})
    list(toy.run(recipe({"steps": 2})))
    assert toy.said[-1].metrics["rollout/carried_share"] == 0.5
    assert ids(toy.carried) == ["a/3"]
    assert "a/3" not in ids(toy.scored)


def test_process_supervision_has_an_advantage_for_every_token_of_all_spans() -> None:
    toy = Toy({0: (1, 6)})
    list(toy.run(recipe({"steps": 2, "advantage": {"supervision": "process"}})))
    row = toy.trained[1].prompt_ids.index("a/0") + 1
    advantages = toy.trained[1].token_advantages
    assert advantages is not None
    assert len(advantages[row]) == 6
    assert any(advantages[row])


LENGTHS = {number: (1 + number % 5, 1 + number * 7 % 13) for number in range(POOL)}


@pytest.mark.parametrize("schedule", ["sync", "async"])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_resumed_equals_uninterrupted(schedule: str, stop: int) -> None:
    what = recipe({"schedule": schedule, "prompts_per_step": 3, "dynamic_sampling": {"max_rounds": 2}})
    whole, cut, resumed = (Toy(LENGTHS, useless=[1, 4, 7]) for _ in range(3))
    list(whole.run(what))
    assert any(stats.metrics["rollout/carried_share"] for stats in whole.said[:stop])
    for step in cut.run(what):
        if step == stop:
            break
    state = json.loads(json.dumps(cut.marks.at(stop)))
    resumed.drawn, resumed.version = state["drawn"], stop + 1
    resumed.carried[:] = unpack(state["carried"], resumed.prompts())
    assert list(resumed.run(what, start=stop)) == list(range(stop + 1, 7))
    # Under `async` the first step after a resume is sampled by fresh weights, not by those before.
    if schedule == "sync":
        assert [stats.groups for stats in resumed.said] == [stats.groups for stats in whole.said[stop:]]
        assert resumed.trained[-1] == whole.trained[-1]
    assert [ids(stats.groups) for stats in resumed.said] == [ids(stats.groups) for stats in whole.said[stop:]]
    assert resumed.drawn == whole.drawn
    assert ids(resumed.carried) == ids(whole.carried)


def test_one_step_ahead_a_continued_completion_is_one_update_older() -> None:
    toy = Toy({0: (1, 6)})
    list(toy.run(recipe({"steps": 3, "schedule": "async"})))
    # Steps 1 and 2 are both sampled by version 1: one span each, which the toy does not join.
    assert toy.said[1].groups[0].completions[1].versions == ((1, 4), (1, 2))
    assert [stats.metrics["rollout/staleness_max"] for stats in toy.said] == [0, 1, 1]


def test_dynamic_sampling_replaces_groups_without_signal_but_not_carried_ones() -> None:
    # Round 1: a/0 is cut, a/1 useless, a/2 useful; one of three is missing, not two. Share
    # (1 + 1) / (2 + 2): two more are drawn, a/3 and a/4, of which a/3 is cut.
    toy = Toy({0: (1, 6), 3: (1, 6)}, useless=[1])
    what = recipe({"prompts_per_step": 3, "dynamic_sampling": {"max_rounds": 3}})
    parts = toy.parts()
    found = gather(what, parts, 1)
    assert found.rounds == 2
    assert ids(found.groups) == ["a/1", "a/2", "a/4"]
    assert ids(found.trained) == ["a/2", "a/4"]
    assert ids(toy.carried) == ["a/0", "a/3"]
    assert found.metrics["rollout/carried_share"] == 0.4
    # Step 2: both go on, and one prompt is drawn.
    found = gather(what, parts, 2)
    assert ids(found.trained) == ["a/0", "a/3", "a/5"]
    assert toy.carried == []


def test_more_carried_groups_than_a_step_takes_wait_their_turn() -> None:
    toy = Toy({})
    everything = Toy(dict.fromkeys(range(5), (9, 9)))
    toy.carried += everything.sample(everything.next(5), 2, 1)
    toy.carried.reverse()
    toy.lengths = {0: (9, 9), 1: (5, 5), 2: (5, 5)}
    parts = toy.parts()
    assert gather(recipe(), parts, 2).carried[0].prompt.id == "a/0"
    assert ids(toy.carried) == ["a/2", "a/3", "a/4", "a/0"]  # the oldest first, cut ones behind
    assert ids(gather(recipe(), parts, 3).groups) == ["a/2", "a/3"]
    assert toy.drawn == 0


def test_a_carried_prompt_drawn_again_is_left_out() -> None:
    toy = Toy({0: (1, 9)}, pool=2)
    list(toy.run(recipe({"steps": 2})))
    assert ids(toy.said[0].groups) == ["a/1"]
    assert toy.said[1].groups == []  # a/0 goes on, and is not begun a second time beside
    assert ids(toy.carried) == ["a/0"]


def test_groups_come_back_from_json_as_they_were() -> None:
    toy = Toy({0: (1, 6)})
    (group,) = toy.sample(toy.next(1), 2, 1)
    experts = np.arange(2 * 3 * 2, dtype=np.uint16).reshape(2, 3, 2)
    group.completions[0] = replace(
        group.completions[0], routed_experts=experts, logprobs=[-1 / 3], text="ä\n", seed=2**63 - 1
    )
    (back,) = unpack(json.loads(json.dumps(pack([group]))), toy.prompts())
    assert back == group
    kept = back.completions[0].routed_experts
    assert kept is not None
    assert kept.dtype == np.uint16
    assert np.array_equal(kept, experts)
    assert back.completions[1].routed_experts is None


def test_groups_of_a_prompt_that_is_gone_are_one_error() -> None:
    toy = Toy({0: (1, 6)})
    packed = pack(list(toy.sample(toy.next(1), 2, 1)))
    with pytest.raises(CheckpointError, match="prompt a/0") as error:
        unpack(packed, toy.prompts()[1:])
    assert error.value.key == "data"


def test_tokens_of_earlier_policies_need_importance_weights() -> None:
    bare = recipe({"importance": {"level": "off"}})
    with pytest.raises(RecipeError, match="importance weights") as error:
        check_partial(bare, file=Path("toy.yaml"))
    assert error.value.key == "rollout.partial_tokens"
    check_partial(recipe(), file=Path("toy.yaml"))
    check_partial(recipe({"importance": {"level": "off"}}, partial_tokens=None), file=Path("toy.yaml"))


def test_a_budget_that_cuts_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"partial_tokens \(10\) cuts nothing"):
        recipe(partial_tokens=LONGEST)
