"""A recorded failure, called again: in a fresh process, on the same sample, with its seed and limits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import RewardError
from align.reward.calls.child import ChildProcess
from align.reward.calls.limits import DIED
from align.reward.calls.worker import Assignment
from align.reward.contract import Sample
from align.reward.functions.rows import sample_from_row
from align.types import Outcome, OutcomeKind


@dataclass(frozen=True, slots=True)
class Failure:
    """One line of a run's ``reward_errors.jsonl``."""

    term: str
    reference: str
    """What ``align.reward.functions.registry.resolve`` finds the function by."""
    args: Mapping[str, Any]
    sample: Sample
    together: tuple[Sample, ...]
    """All samples of the call; the sample alone, unless the function took several at once."""
    run_seed: int
    weight_version: int
    timeout: float
    memory_mib: int
    max_steps: int
    recorded: Outcome


def read_failure(file: Path, row: int) -> Failure:
    """The failure in one line of ``reward_errors.jsonl``.

    Args:
        file: the file.
        row: 1 for the first line, -1 for the last.

    Raises:
        RewardError: no such file or line, or it holds no failure of a function.
    """
    if not file.is_file():
        raise RewardError("no such file", file=file, remedy="name the reward_errors.jsonl of a run directory")
    lines = file.read_text(encoding="utf-8").splitlines()
    if not 1 <= abs(row) <= len(lines):
        raise RewardError(
            f"there is no row {row}: the file has {len(lines)}",
            file=file,
            remedy="count from 1, or from -1 at the end",
        )
    try:
        found = json.loads(lines[row - 1 if row > 0 else row])
        sample = sample_from_row(found, file=file)
        kind: OutcomeKind = found["kind"]
        failure = Failure(
            term=found["term"],
            reference=found["function"] or "",
            args=found["args"],
            sample=sample,
            together=tuple(sample_from_row(each, file=file) for each in found.get("together", ()))
            or (sample,),
            run_seed=found["seed"],
            weight_version=found["weight_version"],
            timeout=found["timeout"],
            memory_mib=found["memory_mib"],
            max_steps=int(found.get("max_steps", 1)),  # rows once did without
            recorded=Outcome(kind, detail=found["detail"], seconds=found["seconds"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RewardError(
            f"row {row} is not a recorded failure: {type(error).__name__}: {error}",
            file=file,
            remedy="a run writes such rows; to score rows of your own, use `align rewards test --data`",
        ) from error
    if not failure.reference:
        raise RewardError(
            f"row {row} is of the reward model {found['model']}, which is no function",
            file=file,
            key=failure.term,
            remedy="replay rows of function terms",
        )
    return failure


def replay(failure: Failure) -> Outcome:
    """Call the function again as the run did.

    Raises:
        RewardError: the function cannot be imported any more.
    """
    function = Assignment(
        failure.reference, failure.args, failure.timeout, failure.memory_mib, failure.max_steps
    )
    with ChildProcess({failure.term: function}, seed=failure.run_seed) as child:
        outcomes = child.score(failure.term, failure.together, step=failure.weight_version)
    return outcomes[failure.together.index(failure.sample)]


def reproduced(recorded: Outcome, now: Outcome) -> bool:
    """Whether both outcomes are the same failure: of one kind and, for errors, for the same reason."""
    return recorded.kind == now.kind and (now.kind != "error" or _reason(recorded) == _reason(now))


def _reason(outcome: Outcome) -> str:
    """The last line of a traceback, without addresses; any end of the process is one reason."""
    if outcome.detail.startswith(DIED):
        return DIED
    return re.sub(r"0x[0-9a-f]+", "0x", outcome.detail.strip().rpartition("\n")[2])
