"""`align describe`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from align.config.knobs import knobs
from align.config.recipe import KINDS


def test_without_a_kind_it_names_them(align: Callable[..., Any]) -> None:
    shown = align("describe").stdout
    for kind in KINDS:
        assert f"{kind}  " in shown


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_shown_with_type_default_and_help(align: Callable[..., Any], kind: str) -> None:
    lines = align("describe", kind).stdout.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert [line.split("  ")[0] for line in heads] == [knob.key for knob in knobs(KINDS[kind])]
    if kind == "grpo":
        assert "grpo.group_size  int ≥ 2 = 8" in lines
        assert lines[lines.index("grpo.steps  int ≥ 1 = 100") + 1] == "    Rollout-and-update rounds."
        assert "policy.path  str  required" in lines


def test_one_key_and_what_is_below_it(align: Callable[..., Any]) -> None:
    lines = align("describe", "grpo", "grpo.importance").stdout.splitlines()
    heads = [line.split("  ")[0] for line in lines if not line.startswith(" ")]
    assert heads == [
        "grpo.importance",
        "grpo.importance.level",
        "grpo.importance.cap",
        "grpo.importance.reject_above",
        "grpo.importance.reject_below",
    ]


def test_a_key_as_it_stands_in_a_recipe(align: Callable[..., Any]) -> None:
    lines = align("describe", "grpo", "rewards.terms.correct.weight").stdout.splitlines()
    assert lines[0] == "rewards.terms.<name>.weight  float = 1"


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["sfd"], "did you mean 'sft'?"),
        (["xyz"], "name one of sft, rm, grpo, eval, pipeline"),
        (["grpo", "optim.rl"], "did you mean 'optim.lr'?"),
        (["grpo", "lr"], "did you mean 'optim.lr'?"),
        (["grpo", "zzzzzz"], "see `align describe grpo`"),
    ],
)
def test_what_is_not_there(align: Callable[..., Any], arguments: list[str], remedy: str) -> None:
    done = align("describe", *arguments)
    assert done.exit_code == 2
    assert remedy in done.stderr
