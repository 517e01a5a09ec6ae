"""Gathering a step, and the loop that runs one step ahead; engines are counters, all else is real."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
from pydantic import ValidationError

from align.config.recipe import GrpoRecipe
from align.report.timing import StageClock
from align.train.grpo.ahead import grpo_async
from align.train.grpo.experience import gather
from align.train.grpo.parts import Parts
from align.types import Completion, Group, Prompt, SampleScore, StepStats, SyncReport, TrainBatch


def recipe(grpo: dict, **sections: dict) -> GrpoRecipe:
    return GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "toy",
            "policy": {"path": "toy"},
            "data": {"parts": {"a": {"path": "a.jsonl"}}},
            "rewards": {"terms": {"a": {"function": "length"}}},
            "grpo": {"prompts_per_step": 4, "group_size": 2, "beta": 0, **grpo},
            **sections,
        }
    )


class Toy:
    """Prompts are numbered; a prompt's samples differ in reward when its number is in ``useful``."""

    def __init__(self, useful: Sequence[int] = (), pool: int = 10**6) -> None:
        self.useful, self.pool = useful, pool
        self.drawn = self.version = self.learnt = 0
        self.rounds: list[int] = []
        self.trained: list[TrainBatch] = []
        self.marks: list[tuple[int, int]] = []
        self.groups: list[Group] = []
        self.pushing = threading.Event()

    def next(self, count: int) -> list[Prompt]:
        self.rounds.append(count)
        first, self.drawn = self.drawn, self.drawn + count
        return [Prompt(f"a/{number % self.pool}", (), [1]) for number in range(first, first + count)]

    def sample(
        self, prompts: Sequence[Prompt], size: int, step: int, carried: Sequence[Group] = ()
    ) -> Iterator[Group]:
        for prompt in reversed(prompts):  # they finish in another order
            assert not self.pushing.is_set(), "weights changed under a running engine"
            completions = [
                Completion(prompt.id, i, [1], [0.0], "", "stop", self.version, seed=0) for i in range(size)
            ]
            yield Group(prompt, completions)

    def submit(self, group: Group) -> None:
        self.groups.append(group)

    def collect(self) -> list[SampleScore]:
        groups, self.groups = self.groups, []
        return [
            SampleScore(each.prompt.id, i, float(i * (int(each.prompt.id[2:]) in self.useful)), {})
            for each in groups
            for i in range(len(each.completions))
        ]

    def metrics(self) -> dict[str, float]:
        return {"reward/rounds": float(len(self.rounds))}

    def update(self, batch: TrainBatch) -> dict[str, float]:
        self.trained.append(batch)
        return {}

    def push(self) -> SyncReport:
        self.pushing.set()
        self.version += 1
        self.pushing.clear()
        return SyncReport(self.version, 1, 1, 0.0, 0.0)

    def parts(self) -> Parts:
        def mark(step: int) -> None:
            self.marks.append((step, self.drawn))

        return Parts(self, self, self, self, self, StageClock(), str, mark)


def ids(groups: Sequence[Group]) -> list[str]:
    return [group.prompt.id for group in groups]


def test_without_dynamic_sampling_every_group_is_trained_on():
    toy = Toy(useful=[1])
    found = gather(recipe({}), toy.parts(), 1)
    assert ids(found.groups) == ids(found.trained) == ["a/0", "a/1", "a/2", "a/3"]
    assert found.rounds == 1
    assert found.advantages == found.trained_advantages
    assert toy.marks == [(1, 4)]


def test_dynamic_sampling_refills_groups_without_signal():
    # Round 1: 1 of 4 useful. 3 missing, share (1+1)/(4+2) = 1/3: 9, at most 4 drawn. Round 2: all four
    # useful, of which three are needed.
    toy = Toy(useful=[1, 4, 5, 6, 7])
    found = gather(recipe({"dynamic_sampling": {"max_rounds": 3}}), toy.parts(), 1)
    assert toy.rounds == [4, 4]
    assert ids(found.groups) == [f"a/{i}" for i in range(8)]
    assert ids(found.trained) == ["a/1", "a/4", "a/5", "a/6"]
    assert len(found.trained_advantages) == 8
    assert [each is not None for each in found.advantages[::2]] == [i in {1, 4, 5, 6} for i in range(8)]
    assert len(found.scores) == 16


def test_dynamic_sampling_gives_up_after_its_rounds():
    toy = Toy()
    found = gather(recipe({"dynamic_sampling": {"max_rounds": 3}}), toy.parts(), 1)
    assert len(toy.rounds) == 3
    assert found.trained == []


def test_a_prompt_drawn_again_in_the_step_is_left_out():
    toy = Toy(useful=[1], pool=4)  # it would get the same seeds, hence the same completions
    found = gather(recipe({"dynamic_sampling": {"max_rounds": 2}}), toy.parts(), 1)
    assert ids(found.groups) == ["a/0", "a/1", "a/2", "a/3"]


def test_one_step_ahead_trains_on_completions_one_update_old():
    toy = Toy(useful=range(1000))
    toy.version = 1  # the first push has happened
    said: list[StepStats] = []
    asynchronous = recipe({"steps": 4, "schedule": "async"})
    assert list(grpo_async(asynchronous, toy.parts(), 0, said.append, StageClock())) == [1, 2, 3, 4]
    assert [stats.metrics["rollout/staleness"] for stats in said] == [0, 1, 1, 1]
    assert [ids(stats.groups)[0] for stats in said] == ["a/0", "a/4", "a/8", "a/12"]
    assert toy.rounds == [4] * 4  # nothing is drawn beyond the last step
    assert toy.marks == [(1, 4), (2, 8), (3, 12), (4, 16)]
    assert [len(batch) for batch in toy.trained] == [8] * 4
    assert "ahead_rollout" in said[1].seconds


@pytest.mark.parametrize(
    ("grpo", "sections", "message"),
    [
        ({"schedule": "async"}, {"cluster": {"residency": "scheduled"}}, "residency to resident"),
        (
            {"schedule": "async", "importance": {"level": "off"}},
            {},
            "importance.level",
        ),
    ],
)
def test_async_asks_for_what_it_needs(grpo, sections, message):
    with pytest.raises(ValidationError, match=message):
        recipe(grpo, **sections)
