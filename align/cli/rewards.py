"""``align rewards``: what rewards there are, and what they say of a few rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from align.cli.common import console

if TYPE_CHECKING:
    from rich.table import Table

    from align.reward.contract import Sample
    from align.reward.functions.registry import RewardFunction
    from align.types import Outcome

app = typer.Typer(help="List and try reward functions.", no_args_is_help=True)


@app.command("list")
def list_rewards() -> None:
    """Show every reward function within reach by name."""
    from rich.table import Table
    from rich.text import Text

    from align.errors import RewardError
    from align.reward.functions.registry import discover

    table = Table("function", "style", "what it does", "file", box=None, pad_edge=False)
    for listed in discover():
        source = os.path.relpath(listed.source) if os.path.isfile(listed.source) else listed.source
        if isinstance(listed.found, RewardError):
            table.add_row(listed.spec, Text("unusable", "red"), Text(listed.found.message), source)
        else:
            table.add_row(listed.spec, _style(listed.found), Text(listed.found.doc), source)
    console.print(table)


@app.command("test")
def try_reward(
    function: Annotated[
        str,
        typer.Argument(
            help="Name, FILE.py, FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, as in a recipe.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="JSONL rows with prompt, completion and columns; default: rows built in."),
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="NAME=FIELD: take a column from another field (a.b goes into a).")
    ] = None,
    arg: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE: an argument of the function (YAML).")
    ] = None,
    text: Annotated[
        bool, typer.Option("--text", help="The prompts of the rows built in are text; default: messages.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Use at most this many rows.")] = 8,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Sampling limit to assume where a row states none.")
    ] = 256,
) -> None:
    """Call a reward function on a few rows, in this process, and show every outcome."""
    from align.reward.bank.varied import moves, unmoved
    from align.reward.calls.score import call
    from align.reward.functions.registry import resolve
    from align.reward.functions.rows import built_in_rows, read_rows
    from align.train.grpo.sandbox_note import sandbox_note

    args = dict(_pair(text, yaml=True) for text in arg or [])
    renames = dict(_pair(text) for text in column or [])
    reward = resolve(function, args)
    samples = (
        read_rows(data, renames, limit=limit, max_new_tokens=max_new_tokens)
        if data
        else built_in_rows(limit=limit, max_new_tokens=max_new_tokens, from_text=text)
    )
    console.print(f"{reward.name} ({_style(reward)}) from {reward.reference}")
    if note := sandbox_note([reward]):
        console.print(note, markup=False)
    outcomes = call(reward, samples, timeout=reward.timeout)
    console.print(_outcome_table(samples, outcomes))
    _raise_first_failure(reward, outcomes, other_form=not (data or text) and reward.style.name == "trl")
    if len({sample.completion for sample in samples}) > 1 and not moves(outcomes):
        console.print(f"warning: {reward.name} {unmoved(reward, samples, outcomes)}.", style="yellow")


@app.command("replay")
def replay_failure(
    file: Annotated[Path, typer.Argument(help="A run's reward_errors.jsonl.", show_default=False)],
    row: Annotated[int, typer.Option(help="Which line: 1 is the first, -1 the last.")] = 1,
) -> None:
    """Repeat a failed reward call of a run: in a fresh process, with the same sample, seed and limits.

    Exit code 0 when it fails in the same way, 1 when it no longer does.
    """
    from align.reward.bank.replay import read_failure, replay, reproduced

    failure = read_failure(file, row)
    sample = failure.sample
    console.print(
        f"term {failure.term}: {failure.reference} {dict(failure.args) or ''}".rstrip(), markup=False
    )
    console.print(
        f"sample {sample.sample_index} of {sample.prompt_id}, weights {failure.weight_version}, "
        f"limits {failure.timeout:g} s and {failure.memory_mib} MiB",
        markup=False,
    )
    now = replay(failure)
    _show("recorded", failure.recorded)
    _show("now", now)
    if not reproduced(failure.recorded, now):
        console.print("it differs now")
        raise typer.Exit(1)
    console.print("reproduced")


def _show(when: str, outcome: Outcome) -> None:
    score = "" if outcome.value is None else f" {outcome.value:g}"
    console.print(f"{when}: {outcome.kind}{score}  ({outcome.seconds:.3f} s)")
    if outcome.detail:
        console.print(outcome.detail, markup=False, highlight=False)


def _outcome_table(samples: list[Sample], outcomes: list[Outcome]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("row", "completion", "outcome", "score", "parts", "ms", box=None, pad_edge=False)
    for number, (sample, outcome) in enumerate(zip(samples, outcomes, strict=True)):
        ending = " ".join(sample.completion.split())
        table.add_row(
            str(number),
            Text(ending if len(ending) <= 48 else f"…{ending[-47:]}"),
            Text(outcome.kind, "red" if outcome.kind in {"error", "timeout"} else ""),
            "" if outcome.value is None else f"{outcome.value:g}",
            Text(" ".join(f"{name}={value:g}" for name, value in outcome.parts.items())),
            f"{outcome.seconds * 1000:.2f}",
        )
    return table


def _raise_first_failure(reward: RewardFunction, outcomes: list[Outcome], *, other_form: bool) -> None:
    from align.errors import RewardError

    failed = [outcome for outcome in outcomes if outcome.kind in {"error", "timeout"}]
    if failed:
        file, _, member = reward.reference.rpartition(":")
        raise RewardError(
            f"{len(failed)} of {len(outcomes)} calls failed; the first: {failed[0].detail}",
            file=file,
            key=member,
            remedy="mend the function, or give it rows with the columns it reads (--data, --column)"
            + (", or texts in place of messages (--text)" if other_form else ""),
        )


def _pair(text: str, *, yaml: bool = False) -> tuple[str, Any]:
    from align.errors import RewardError

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise RewardError(f"cannot read {text!r}", key=name or None, remedy="write NAME=VALUE")
    if not yaml:
        return name, value
    from yaml import YAMLError

    from align.config import yaml12
    from align.config.load import anchor

    try:
        return name, anchor(yaml12.parse(value), Path.cwd())  # as in an override of a recipe
    except YAMLError as error:
        raise RewardError(
            f"the value {value!r} is not YAML: {yaml12.reason(error)}",
            key=name,
            remedy=f"quote it: {name}='\"…\"'",
        ) from error


def _style(reward: RewardFunction) -> str:
    words: list[str] = [reward.style.name]
    if reward.style.name == "native" and reward.batched:
        words.append("batched")
    return " ".join([*words, "async"] if reward.awaits else words)
