from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.reward.functions.registry import resolve

Score = Callable[..., float | None]
Followed = Callable[..., list[bool]]

FUNCTION = resolve("instructions").function
FOLLOWED: Followed = FUNCTION.__globals__["followed"]
CHECKS: dict[str, Any] = FUNCTION.__globals__["CHECKS"]

# kind, arguments, answers that follow, answers that do not
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["cat", "Dog"]}, ["Cats and dogs"], ["cats only", "dog"]),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["rock", "c++"]},
        ["a rocky road", "a road"],
        ["A Rock.", "rock"],
    ),
    (
        "keywords:frequency",
        {"keyword": "sun", "relation": "at least", "frequency": 3},
        ["Sun sunny sunshine"],
        ["sun sun"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "q", "let_relation": "less than", "let_frequency": 2},
        ["Quick", "none"],
        ["quick Q"],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Ich weiß nicht, ob das Wetter morgen besser wird.", "42"],
        ["I do not know whether the weather gets better tomorrow."],
    ),
    (
        "length_constraints:number_sentences",
        {"relation": "less than", "num_sentences": 3},
        [
            "One. Two!",
            "Dr. Lee met J. Smith at 3.5 km, i.e. close by. He left",
            "He said... well, no. Yes?",
            "A\nB\nC\nD",
        ],
        ["One. Two? Three!", "a. b. c.", 'He said "No." She left. They stayed.'],
    ),
    (
        "length_constraints:number_words",
        {"relation": "at least", "num_words": 4},
        ["one two three four", "it's a day"],
        ["one two three"],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["one\n***\ntwo", "***\none\n***\ntwo\n***"],
        ["one\n\ntwo", "one\n***\n***\ntwo", "a***b***c"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Hello"},
        ["one\n\nhello, you", 'one\n\n"Hello" you'],
        ["hello\n\none", "one\n\nhello\n\nthree", "one", "one\n\nhelloo"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[name] and [address]", "[a [b] [c]"],
        ["[name]", "[name] [open"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye.\nP.S. One more", "bye p. s. more"],
        ["Bye.\nPS more", "Bye"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  - b", "text\n* a\n- b"],
        ["* a", "**a**\n* b", "* a\n* b\n* c"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Well. My answer is maybe."],
        ["yes", "My answer is yes", "my answer is no."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*one* and *two*", "**one** and *two*"],
        ["*one*", "* a\n* b", "none"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\na\nSECTION 2\nb"],
        ["SECTION 1\na", "Section 1\na\nSection 2\nb", "SECTION A\nSECTION B"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1, 2]}', '```json\n{"a": 1}\n```', "```\n[]\n```", '"text"'],
        ["{'a': 1}", 'Here: {"a": 1}', "{", "[" * 5000],
    ),
    (
        "detectable_format:title",
        {},
        ["<<A title>>\ntext", "text <<t>>"],
        ["<A title>", "<< >>", "<<open\nclose>>"],
    ),
    (
        "combination:two_responses",
        {},
        ["one\n******\ntwo", "******one******two******"],
        ["one", "one******one", "a******b******c", "one************two"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "What is it?"},
        ["What is it?\nA cat.", "  what is IT? "],
        ["A cat. What is it?", "What is"],
    ),
    (
        "startend:end_checker",
        {"end_phrase": "The end."},
        ["And so. THE END.", '"And so. The end."'],
        ["The end. And more"],
    ),
    ("startend:quotation", {}, ['"All of it."', ' "a" '], ['"', '"some" of it', "none"]),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "at least", "capital_frequency": 2},
        ["I SEE it", "DON'T you", "NASA-ESA and (USA)"],
        ["See It", "ONE two"],
    ),
    (
        "change_case:english_capital",
        {},
        ["THIS IS WHAT I WANTED TO SAY TO YOU TODAY."],
        ["This is what I wanted to say to you today.", "DAS WETTER WIRD MORGEN LEIDER NICHT BESSER SEIN."],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["this is what i wanted to say to you today."],
        ["This is what i wanted to say to you today.", "das wetter wird morgen leider nicht besser sein."],
    ),
    ("punctuation:no_comma", {}, ["one; two"], ["one, two"]),
]


@pytest.mark.parametrize(("kind", "arguments", "good", "bad"), CASES, ids=[case[0] for case in CASES])
def test_kind(kind: str, arguments: dict[str, Any], good: list[str], bad: list[str]) -> None:
    # A table with one column for every argument holds null in the others.
    for given in (arguments, {**arguments, "num_of_another_kind": None}):
        assert [FOLLOWED(text, [kind], [given]) for text in good] == [[True]] * len(good)
        assert [FOLLOWED(text, [kind], [given]) for text in bad] == [[False]] * len(bad)
    assert FOLLOWED(" \n", [kind], [arguments]) == [False]


def test_language_of_a_short_text_is_always_the_same() -> None:
    language = CHECKS["language:response_language"].__globals__["_language"]
    for text in ("no.", "ok", "YES, I AM."):
        seen = set()
        for _ in range(20):
            language.cache_clear()
            seen.add(language(text))
        assert len(seen) == 1


def test_all_25_kinds_are_tested() -> None:
    assert len(CASES) == len({case[0] for case in CASES}) == 25
    assert {case[0] for case in CASES} == set(CHECKS)


def test_share_and_prompt_level(score: Score) -> None:
    row: dict[str, Any] = {
        "instruction_id_list": ["punctuation:no_comma", "startend:quotation", "en:detectable_format:title"],
        "kwargs": [{}, None, {}],
    }
    assert score("instructions", "none at all", **row) == pytest.approx(1 / 3)
    assert score("instructions", '"<<title>> text"', **row) == 1.0
    assert score("instructions", "", **row) == 0.0
    assert score("instructions", "none at all", args={"level": "prompt"}, **row) == 0.0
    assert score("instructions", '"<<title>> text"', args={"level": "prompt"}, **row) == 1.0


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('Sure:\n"All of it."', "startend:quotation"),
        ('"All of it."\nHope it helps', "startend:quotation"),
        ('Sure:\n"All of it."\nHope it helps', "startend:quotation"),
        ('**"All of it."**', "startend:quotation"),
        ("Sure, here:\n*a b*", "punctuation:no_comma"),
    ],
)
def test_loose_forgives_frame_and_asterisks(score: Score, text: str, kind: str) -> None:
    row: dict[str, Any] = {"instruction_id_list": [kind], "kwargs": [{}]}
    assert score("instructions", text, **row) == 0.0
    assert score("instructions", text, args={"form": "loose"}, **row) == 1.0


def test_nothing_to_check_abstains(score: Score) -> None:
    assert score("instructions", "text", instruction_id_list=None, kwargs=None) is None
    assert score("instructions", "text", instruction_id_list=[], kwargs=[]) is None


@pytest.mark.parametrize(
    ("kinds", "arguments", "args", "message"),
    [
        (["no:such"], [{}], {}, "unknown instruction kind 'no:such'"),
        (["punctuation:no_comma"], [], {}, "1 instructions, but arguments for 0"),
        (["punctuation:no_comma"], [{}], {"form": "lose"}, "form is strict or loose"),
        (
            ["length_constraints:number_words"],
            [{"relation": "about", "num_words": 3}],
            {},
            "neither 'at least' nor 'less than'",
        ),
    ],
)
def test_faulty_rows(
    score: Score, kinds: list[str], arguments: list[Any], args: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        score("instructions", "text", args=args, instruction_id_list=kinds, kwargs=arguments)


@pytest.mark.parametrize(
    "text_of",
    [
        lambda n: "[" * n,
        lambda n: "<<" * n,
        lambda n: "*a" * n,
        lambda n: "!" * n + "x",
        lambda n: ". " * n,
        lambda n: "```" * n,
        lambda n: "{" + " " * n + "x",
        lambda n: "a" * n,
        lambda n: "\n" * n,
        lambda n: "P." * n,
        lambda n: "***" * n,
        lambda n: '"' * n,
    ],
)
def test_hostile_answers_are_quick(text_of, grows_as_its_text) -> None:
    kinds, arguments = [case[0] for case in CASES], [case[1] for case in CASES]
    grows_as_its_text(lambda text: FOLLOWED(text, kinds, arguments, loose=True), text_of)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("responses", "verdicts", "loose", "differ"),
    [
        # The published checker draws a random letter where the prompt names a sign ("#", "!").
        ("qwen2.5-1.5b_strict", "qwen2.5-1.5b_strict", False, [(1122, "#"), (1129, "!")]),
        ("qwen2.5-1.5b_strict", "qwen2.5-1.5b_loose_flags", True, [(1122, "#"), (1129, "!")]),
        ("mistral-7b_strict", "mistral-7b_strict", False, []),
    ],
)
def test_agreement_with_the_published_verdicts(
    shared_data: Path, responses: str, verdicts: str, loose: bool, differ: list[tuple[int, str]]
) -> None:
    folder = shared_data / "ifeval"
    rows = read(folder / "input_data.jsonl")
    answers = read(folder / f"oracle_{responses}.jsonl")
    published = read(folder / f"oracle_{verdicts}.jsonl")
    total, found = 0, []
    for row, answer, verdict in zip(rows, answers, published, strict=True):
        assert answer["prompt"] == row["prompt"]
        mine = FOLLOWED(answer["response"], row["instruction_id_list"], row["kwargs"], loose=loose)
        theirs = verdict["follow_instruction_list"]
        total += len(theirs)
        for arguments, one, other in zip(row["kwargs"], mine, theirs, strict=True):
            if one != other:
                found.append((row["key"], arguments.get("letter")))
    print(f"ifeval {verdicts}: {total - len(found)} of {total} verdicts agree; not {found}")
    assert total == 834
    assert found == differ


def test_every_published_kind_is_known(shared_data: Path) -> None:
    kinds = json.loads((shared_data / "ifeval" / "instruction_ids.json").read_text(encoding="utf-8"))
    assert {kind.removeprefix("en:") for kind in kinds} == set(CHECKS)
