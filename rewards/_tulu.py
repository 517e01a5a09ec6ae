"""The instructions of Tulu 3's RLVR data (arXiv 2411.15124): the same 25 kinds under other names.

A row holds ``{"func_name": "validate_lowercase", "N": null, …}``. Counts are exact here where IFEval's are
bounds, and the bounds are "at least", "at most" and "around", a tenth more or less.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from align.reward import RewardError

from ._instruction_checks import CHECKS
from ._sentences import capital_words, sentences

Asked = tuple[Sequence[str], Sequence[Mapping[str, Any] | None]]

TULU: dict[str, Callable[..., bool]] = {
    "verify_keywords": lambda text, keyword_list: CHECKS["keywords:existence"](text, keyword_list),
    "verify_keyword_frequency": lambda text, word, N: (
        len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)) == int(N)
    ),
    "validate_forbidden_words": lambda text, forbidden_words: (
        not any(word.lower() in text.lower() for word in forbidden_words)
    ),
    "verify_letter_frequency": lambda text, letter, N: text.count(letter) == int(N),
    "validate_response_language": lambda text, language: CHECKS["language:response_language"](text, language),
    "verify_paragraph_count": lambda text, N: _all_filled(text.split("* * *"), int(N)),
    "validate_word_constraint": lambda text, N, quantifier: _within(len(text.split()), quantifier, int(N)),
    "verify_sentence_constraint": lambda text, N, quantifier: _within(
        len(sentences(text)), quantifier, int(N), slack=1
    ),
    "validate_paragraphs": lambda text, N, first_word, i: CHECKS[
        "length_constraints:nth_paragraph_first_word"
    ](text, num_paragraphs=int(N), nth_paragraph=int(i), first_word=first_word),
    "verify_postscript": lambda text, postscript_marker: bool(
        text.partition(postscript_marker)[1] and text.partition(postscript_marker)[2].strip()
    ),
    "validate_placeholders": lambda text, N: CHECKS["detectable_content:number_placeholders"](text, int(N)),
    "verify_bullet_points": lambda text, N: CHECKS["detectable_format:number_bullet_lists"](text, int(N)),
    "validate_title": CHECKS["detectable_format:title"],
    "validate_choice": lambda text, options: any(option in text for option in _options(options)),
    "validate_highlighted_sections": lambda text, N: CHECKS["detectable_format:number_highlighted_sections"](
        text, int(N)
    ),
    "validate_sections": lambda text, N, section_splitter: CHECKS["detectable_format:multiple_sections"](
        text.lower(), section_splitter.lower(), int(N)
    ),
    "validate_json_format": CHECKS["detectable_format:json_format"],
    "validate_repeat_prompt": lambda text, original_prompt: CHECKS["combination:repeat_prompt"](
        text, original_prompt
    ),
    "validate_two_responses": CHECKS["combination:two_responses"],
    "validate_uppercase": lambda text: text == text.upper(),
    "validate_lowercase": lambda text: text == text.lower(),
    "validate_frequency_capital_words": lambda text, N, quantifier: _within(
        capital_words(text), quantifier, int(N)
    ),
    "validate_end": lambda text, end_phrase: CHECKS["startend:end_checker"](text, end_phrase),
    "validate_quotation": CHECKS["startend:quotation"],
    "validate_no_commas": CHECKS["punctuation:no_comma"],
}


def asked_in(truth: Any) -> Asked:
    """Kinds and their arguments in the column ``ground_truth``: a mapping, several, JSON of them, or
    several texts with JSON.

    ``{"instruction_id": [...], "kwargs": [...]}``, the form of the later data, is read too.

    Raises:
        RewardError: it is none of these.
    """
    rows = _decoded(truth)
    kinds: list[str] = []
    arguments: list[Mapping[str, Any] | None] = []
    rows = [rows] if isinstance(rows, Mapping) else rows if isinstance(rows, list | tuple) else [None]
    for row in map(_decoded, rows):
        if isinstance(row, Mapping) and isinstance(row.get("func_name"), str):
            kinds.append(row["func_name"])
            arguments.append({key: value for key, value in row.items() if key != "func_name"})
        elif isinstance(row, Mapping) and "instruction_id" in row and "kwargs" in row:
            kinds += _listed(row["instruction_id"])
            arguments += _listed(row["kwargs"])
        else:
            raise RewardError(
                f"{str(truth)[:80]!r} names no instruction",
                key="ground_truth",
                remedy='give {"func_name": …} with its arguments, or keep such rows out with `where`',
            )
    return kinds, arguments


def _decoded(truth: Any) -> Any:
    if isinstance(truth, str):
        for read in (json.loads, ast.literal_eval):
            try:
                return read(truth)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return truth


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _within(count: int, quantifier: str, bound: int, slack: int | None = None) -> bool:
    if quantifier == "at least":
        return count >= bound
    if quantifier == "at most":
        return count <= bound
    if quantifier == "around":
        return abs(count - bound) <= (max(round(bound * 0.1), 1) if slack is None else slack)
    raise RewardError(
        f"quantifier {quantifier!r} is neither 'at least' nor 'at most' nor 'around'",
        key="ground_truth",
        remedy="correct the row, or drop it",
    )


def _all_filled(parts: Iterable[str], count: int) -> bool:
    found = [part.strip() for part in parts]
    return all(found) and len(found) == count


def _options(options: Any) -> list[str]:
    """A list, or text that lists them."""
    if isinstance(options, str):
        listed = _decoded(options)
        if isinstance(listed, list | tuple):
            return [str(option) for option in listed]
        parts = (part.strip(" '\"()[]") for part in re.split(r"[/,;\n]|\bor\b", options))
        return [part for part in parts if part]
    return [str(option) for option in options]
