"""Samples as JSON rows: recorded failures, files to try a reward on, and a few rows built in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from align.errors import RewardError
from align.reward.contract import Sample


def sample_to_row(sample: Sample) -> dict[str, Any]:
    """A sample as JSON."""
    return {
        "prompt_id": sample.prompt_id,
        "sample_index": sample.sample_index,
        "part": sample.part,
        "prompt": [dict(message) for message in sample.prompt],
        "completion": sample.completion,
        "token_ids": list(sample.token_ids),
        "finish_reason": sample.finish_reason,
        "max_new_tokens": sample.max_new_tokens,
        "columns": dict(sample.columns),
        "prompt_from_text": sample.prompt_from_text,
    }


def sample_from_row(row: Mapping[str, Any], *, file: str | Path | None = None) -> Sample:
    """A sample from JSON: a recorded failure, or a plain row with ``prompt``, ``completion`` and columns.

    A ``prompt`` that is no list of messages, or absent, counts as text. Where ``token_ids`` is absent, one
    made-up id a word stands in, so that lengths mean something.

    Raises:
        RewardError: there is no ``completion`` text.
    """
    completion = row.get("completion")
    if not isinstance(completion, str):
        raise RewardError(
            f"the row has no text in 'completion' (its columns: {', '.join(row) or 'none'})",
            file=file,
            key="completion",
            remedy="point at the answer with --column completion=NAME",
        )
    prompt = row.get("prompt", "")
    listed = isinstance(prompt, list)
    messages = prompt if listed else [{"role": "user", "content": str(prompt)}]
    columns = row.get("columns")
    if not isinstance(columns, Mapping):
        columns = {name: value for name, value in row.items() if name not in {"prompt", "completion"}}
    return Sample(
        prompt=tuple(messages),
        completion=completion,
        token_ids=row.get("token_ids") or word_ids(completion),
        finish_reason="length" if row.get("finish_reason") == "length" else "stop",
        max_new_tokens=int(row.get("max_new_tokens") or 0),
        columns=columns,
        part=str(row.get("part") or ""),
        prompt_id=str(row.get("prompt_id") or ""),
        sample_index=int(row.get("sample_index") or 0),
        prompt_from_text=bool(row.get("prompt_from_text")) if listed else True,
    )


def read_rows(file: Path, renames: Mapping[str, str], *, limit: int, max_new_tokens: int) -> list[Sample]:
    """The first samples of a JSONL file.

    Args:
        file: one JSON object a line, as ``sample_from_row`` reads it.
        renames: new column → the field it is taken from; dots go into nested objects.
        limit: rows to read at most.
        max_new_tokens: sampling limit of rows that state none.

    Raises:
        RewardError: the file is missing, empty or not JSONL, or a field is absent.
    """
    if not file.is_file():
        raise RewardError("no such data file", file=file, remedy="name a .jsonl file with one object a line")
    samples: list[Sample] = []
    with file.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            if len(samples) == limit:
                break
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise RewardError(
                    f"line {number} is not JSON: {error}", file=file, remedy="write one JSON object a line"
                ) from error
            if not isinstance(row, dict):
                raise RewardError(
                    f"line {number} is not an object", file=file, remedy="write {...} on each line"
                )
            row |= {name: _field(row, source, file, number) for name, source in renames.items()}
            sample = sample_from_row(row, file=file)
            samples.append(
                sample if sample.max_new_tokens else replace(sample, max_new_tokens=max_new_tokens)
            )
    if not samples:
        raise RewardError("the data file is empty", file=file, remedy="give at least one row")
    return samples


def word_ids(text: str) -> list[int]:
    """Stand-ins for token ids: one a word, the same for the same word."""
    known: dict[str, int] = {}
    return [known.setdefault(word, len(known)) for word in text.split()]


def _field(row: Mapping[str, Any], path: str, file: Path, number: int) -> Any:
    value: Any = row
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            raise RewardError(
                f"line {number} has no field {path!r}",
                file=file,
                key=path,
                remedy=f"its fields: {', '.join(row)}",
            )
        value = value[step]
    return value


def built_in_rows(*, limit: int, max_new_tokens: int, from_text: bool = False) -> list[Sample]:
    """Answers of several kinds, with the columns that the shipped rewards read.

    Args:
        limit: rows at most.
        max_new_tokens: the limit under which they count as sampled.
        from_text: their prompt counts as a row's text, not as its messages.
    """
    question = ({"role": "user", "content": "What is 6 times 7?"},)
    answers = {
        "Six times seven is 42.\n#### 42": False,
        "The answer is \\boxed{42}.": False,
        "The answer is 48.": False,
        "<think>6 * 7 = 42</think> <answer>42</answer>": False,
        "I'm sorry, but I can't help with that.": True,
        "42 42 42 42 42 42 42 42 42 42 42 42": False,
        "": False,
    }
    columns = {"answer": "42", "ground_truth": "42", "solution": "42"}
    return [
        Sample(
            prompt=question,
            completion=text,
            token_ids=word_ids(text),
            finish_reason="stop" if text else "length",
            max_new_tokens=max_new_tokens,
            columns={**columns, "should_refuse": refuses},
            part="built-in",
            prompt_id=f"built-in/{number}",
            prompt_from_text=from_text,
        )
        for number, (text, refuses) in enumerate(answers.items())
    ][:limit]
