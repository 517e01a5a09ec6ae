"""The loop: which passes a step makes, what it reports of several updates, and its learning rate.

Loop and clock are real, and the policy where it says so; the others are counters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from align.algo.schedule import lr_factor
from align.config.recipe import GrpoRecipe
from align.model.policy import PolicyModel
from align.report.timing import StageClock
from align.train.grpo.loop import grpo
from align.train.grpo.parts import Parts
from align.types import Completion, Group, Prompt, SampleScore, StepStats, SyncReport, TrainBatch

POLICY = Path(__file__).parents[3] / "recipes/quickstart/policy"


def recipe(grpo: dict[str, Any], **sections: Any) -> GrpoRecipe:
    return GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "toy",
            "policy": {"path": str(POLICY), "init": "random", "dtype": "float32"},
            "data": {"parts": {"a": {"path": "a.jsonl"}}},
            "rewards": {"terms": {"a": {"function": "length"}}},
            "grpo": {"steps": 1, "prompts_per_step": 2, "group_size": 2, "beta": 0, **grpo},
            **sections,
        }
    )


class Toy:
    """All parts but the policy. Two prompts a step, ``a/0`` and ``a/1``, with two completions each.

    Their rewards differ, except for the (step, prompt) in ``useless``.
    """

    def __init__(self, useless: Sequence[tuple[int, int]] = ()) -> None:
        self.useless, self.step = useless, 0
        self.submitted: list[Group] = []
        self.said: list[StepStats] = []

    def next(self, count: int) -> list[Prompt]:
        return [Prompt(f"a/{number}", (), [5 + number, 9]) for number in range(count)]

    def sample(
        self, prompts: Sequence[Prompt], size: int, step: int, carried: Sequence[Group] = ()
    ) -> Iterator[Group]:
        self.step = step
        for prompt in prompts:
            completions = [
                Completion(prompt.id, i, [20 + i, 30], [-6.0, -6.0], "", "stop", step, seed=0)
                for i in range(size)
            ]
            yield Group(prompt, completions)

    def submit(self, group: Group) -> None:
        self.submitted.append(group)

    def collect(self) -> list[SampleScore]:
        groups, self.submitted = self.submitted, []
        return [
            SampleScore(
                each.prompt.id, i, float(i * ((self.step, int(each.prompt.id[2:])) not in self.useless)), {}
            )
            for each in groups
            for i in range(len(each.completions))
        ]

    def metrics(self) -> dict[str, float]:
        return {}

    def push(self) -> SyncReport:
        return SyncReport(self.step, 1, 1, 0.0, 0.0)

    def run(self, what: GrpoRecipe, policy: Any, start: int = 0) -> Iterator[int]:
        parts = Parts(self, policy, self, self, self, StageClock(), str, lambda step: None)
        return grpo(what, parts, start, self.said.append)


class Passes:
    """A policy that notes what it is asked for; π_old is -6 for ``a/0`` and -6 + ln 4 for ``a/1``."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def logprobs(self, batch: TrainBatch) -> list[list[float]]:
        self.calls.append("old")
        return [[-6 + math.log(4) * (name == "a/1")] * 2 for name in batch.prompt_ids]

    def ref_logprobs(self, batch: TrainBatch) -> list[list[float]]:
        self.calls.append("reference")
        return [[-6.0] * 2] * len(batch)

    def update(self, batch: TrainBatch) -> dict[str, float]:
        if not len(batch):
            self.calls.append("nothing")
            return {"memory/trainer_gib": 1.0}
        self.calls.append("update")
        self.batch = batch
        count = float(self.calls.count("update"))
        return {
            "train/loss": count,
            "train/fed_tokens": 10 * count,
            "memory/trainer_gib": 1 + count,
            "mismatch/logprob_max": count,
        }


@pytest.mark.parametrize(
    ("beta", "minibatches", "epochs", "expected"),
    [
        (0, 1, 1, ["update"]),
        (0.04, 1, 1, ["reference", "update"]),
        (0, 2, 1, ["old"] * 2 + ["update"] * 2),
        (0.04, 2, 1, ["reference"] * 2 + ["old"] * 2 + ["update"] * 2),
        (0, 1, 2, ["old"] + ["update"] * 2),
        (0.04, 1, 2, ["reference", "old"] + ["update"] * 2),
    ],
)
def test_a_step_makes_no_pass_that_it_does_not_need(
    beta: float, minibatches: int, epochs: int, expected: list[str]
) -> None:
    policy = Passes()
    what = recipe({"steps": 3, "beta": beta, "minibatches": minibatches, "epochs": epochs})
    for step in Toy().run(what, policy):
        assert policy.calls == expected, step
        assert (policy.batch.ref_logprobs is None) is (beta == 0)
        assert (policy.batch.old_logprobs is None) is (minibatches * epochs == 1)
        policy.calls.clear()


def test_the_only_minibatch_with_a_signal_is_on_policy() -> None:
    policy = Passes()
    list(Toy(useless=[(1, 0)]).run(recipe({"minibatches": 2}), policy))
    assert policy.calls == ["nothing", "update"]


def test_a_step_without_signal_still_tells_the_policy() -> None:
    policy, toy = Passes(), Toy(useless=[(1, 0), (1, 1)])
    list(toy.run(recipe({"minibatches": 2, "epochs": 2}), policy))
    assert policy.calls == ["nothing"] * 4
    assert not any(name.startswith(("train/", "mismatch/")) for name in toy.said[0].metrics)


def test_metrics_of_two_minibatches_are_those_of_the_step() -> None:
    toy = Toy()
    what = recipe({"minibatches": 2, "epochs": 2, "importance": {"cap": 2, "reject_above": 3}})
    list(toy.run(what, Passes()))
    found = toy.said[0].metrics
    # Of 8 tokens, each once: 4 agree, 4 are off by ln 4, which is a weight of 4.
    assert found["mismatch/logprob_mean"] == pytest.approx(math.log(4) / 2)
    assert found["mismatch/logprob_max"] == pytest.approx(math.log(4))
    assert found["mismatch/weight_p01"] == 1
    assert found["mismatch/weight_p99"] == pytest.approx(4)
    assert found["mismatch/rejected"] == 4
    assert found["mismatch/rejected_share"] == 0.5
    # Four updates report 1, 2, 3, 4.
    assert found["train/loss"] == 2.5
    assert found["train/fed_tokens"] == 100
    assert found["memory/trainer_gib"] == 5


def lr_of(stats: StepStats) -> float | None:
    return stats.metrics.get("train/lr")


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_learning_rate_follows_the_steps_also_those_without_signal(schedule: str) -> None:
    """The policy is real."""
    what = recipe({"steps": 4, "minibatches": 2}, optim={"lr": 1e-3, "schedule": schedule})
    toy, policy = Toy(useless=[(2, 0), (2, 1), (3, 0)]), PolicyModel(what, device="cpu")
    list(toy.run(what, policy))
    factors = [1e-3 * lr_factor(update, 8, what.optim) for update in range(8)]
    assert [lr_of(stats) for stats in toy.said] == [
        pytest.approx((factors[0] + factors[1]) / 2),
        None,
        pytest.approx(factors[5]),
        pytest.approx((factors[6] + factors[7]) / 2),
    ]
    assert policy.updates == policy.total_updates == 8


def test_a_resume_after_a_step_without_signal_is_exact(tmp_path: Path) -> None:
    """The policy is real."""
    what = recipe({"steps": 4}, optim={"lr": 1e-3, "schedule": "cosine"})
    useless = [(2, 0), (2, 1)]
    whole, first, second = (PolicyModel(what, device="cpu") for _ in range(3))
    uninterrupted, resumed = Toy(useless), Toy(useless)
    list(uninterrupted.run(what, whole))
    for step in Toy(useless).run(what, first):
        if step == 2:
            first.save(tmp_path)
            break
    second.load(tmp_path)
    list(resumed.run(what, second, start=2))
    assert [lr_of(each) for each in resumed.said] == [lr_of(each) for each in uninterrupted.said[2:]]
    assert lr_of(resumed.said[0]) == pytest.approx(0.5e-3)
    for mine, theirs in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
