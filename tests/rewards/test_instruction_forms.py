"""`instructions` beyond IFEval's own: languages by any name, Tulu's rows, kinds of the user's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.errors import RewardError
from align.reward.functions.registry import resolve

Score = Callable[..., float | None]
GLOBALS = resolve("instructions").function.__globals__
TULU: dict[str, Any] = GLOBALS["TULU"]

ENGLISH = "I do not know whether the weather gets better tomorrow."
GERMAN = "Ich weiß nicht, ob das Wetter morgen besser wird."
SIMPLIFIED = "今天天气很好，我们去公园散步吧。"
TRADITIONAL = "今天天氣很好，我們去公園散步吧。"
JAPANESE = "今日は天気がいいので、公園を散歩しましょう。"
KOREAN = "오늘은 날씨가 좋으니 공원을 산책합시다."


def asked(score: Score, text: str, language: str) -> float | None:
    row = {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": language}]}
    return score("instructions", text, **row)


@pytest.mark.parametrize(
    ("language", "right", "wrong"),
    [
        ("zh", [SIMPLIFIED, TRADITIONAL, "我不知道", "好的", "你好"], [ENGLISH, JAPANESE, KOREAN]),
        ("Chinese", [SIMPLIFIED, TRADITIONAL], [ENGLISH]),
        ("中文", [SIMPLIFIED, TRADITIONAL], [ENGLISH]),
        ("zh-cn", [SIMPLIFIED, "你好"], [TRADITIONAL, ENGLISH]),
        ("zh_CN", [SIMPLIFIED], [TRADITIONAL]),
        ("zh-Hans-CN", [SIMPLIFIED], [TRADITIONAL]),
        ("Chinese (Simplified)", [SIMPLIFIED], [TRADITIONAL]),
        ("Simplified Chinese", [SIMPLIFIED], [TRADITIONAL]),
        ("zh-TW", [TRADITIONAL, "你好"], [SIMPLIFIED]),
        ("zh-Hant", [TRADITIONAL], [SIMPLIFIED]),
        ("zh-HK", [TRADITIONAL], [SIMPLIFIED]),
        ("en", [ENGLISH], [GERMAN, SIMPLIFIED]),
        ("en-US", [ENGLISH], [GERMAN]),
        ("deu", [GERMAN], [ENGLISH]),
        ("EN_gb", [ENGLISH], [GERMAN]),
        ("English", [ENGLISH], [GERMAN]),
        ("de-AT", [GERMAN], [ENGLISH]),
        ("German", [GERMAN], [ENGLISH]),
        ("ja", [JAPANESE], [SIMPLIFIED]),
        ("Korean", [KOREAN], [JAPANESE, TRADITIONAL]),
        ("Brazilian Portuguese", ["Eu não sei se o tempo vai melhorar amanhã de manhã."], [ENGLISH]),
    ],
)
def test_languages_by_code_or_name(score: Score, language: str, right: list[str], wrong: list[str]) -> None:
    assert [asked(score, text, language) for text in right] == [1.0] * len(right)
    assert [asked(score, text, language) for text in wrong] == [0.0] * len(wrong)


@pytest.mark.parametrize("language", ["xx", "Klingon", "", "e", "la"])
@pytest.mark.parametrize("text", [ENGLISH, ""])
def test_an_unknown_language_is_an_error(score: Score, language: str, text: str) -> None:
    with pytest.raises(
        RewardError, match=r"language: unknown language .*\n  remedy: give one of the codes af"
    ):
        asked(score, text, language)
    with pytest.raises(RewardError, match="language: unknown language"):
        score(
            "instructions",
            text,
            ground_truth={"func_name": "validate_response_language", "language": language},
        )


@pytest.mark.parametrize("expected", ["zh", "zh-CN", "zh_tw", "Chinese"])
def test_the_reward_language_knows_the_same_names(score: Score, expected: str) -> None:
    assert score("language", "是四个 four", args={"expected": expected}) == 0.75
    assert score("language", "是四个 four", language=expected) == 0.75
    assert score("language", "是四个 four", language="en-US") == 0.25
    with pytest.raises(RewardError, match="unknown language 'Klingon'"):
        score("language", "four", language="Klingon")


# Tulu. Function, arguments, answers that follow, answers that do not: by the wording of the instructions.
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("verify_keywords", {"keyword_list": ["cat", "Dog"]}, ["Cats and dogs"], ["cats only"]),
    (
        "verify_keyword_frequency",
        {"word": "sun", "N": 2},
        ["Sun, sun!", "sun sunny sun"],
        ["sun", "sun sun sun"],
    ),
    ("validate_forbidden_words", {"forbidden_words": ["rock"]}, ["a road"], ["A Rock.", "rocky"]),
    ("verify_letter_frequency", {"letter": "q", "N": 2}, ["quick quiz", "qqQ"], ["quick", "qqq"]),
    ("validate_response_language", {"language": "de"}, [GERMAN], [ENGLISH]),
    ("verify_paragraph_count", {"N": 2}, ["a\n* * *\nb"], ["a", "a\n* * *\n", "a\n* * *\nb\n* * *\nc"]),
    ("validate_word_constraint", {"N": 3, "quantifier": "at least"}, ["a b c"], ["a b"]),
    ("validate_word_constraint", {"N": 3, "quantifier": "at most"}, ["a b c"], ["a b c d"]),
    (
        "validate_word_constraint",
        {"N": 20, "quantifier": "around"},
        ["a " * 18, "a " * 22],
        ["a " * 17, "a " * 23],
    ),
    ("verify_sentence_constraint", {"N": 2, "quantifier": "at least"}, ["It rains. We stay."], ["It rains."]),
    (
        "verify_sentence_constraint",
        {"N": 2, "quantifier": "at most"},
        ["It rains. We stay."],
        ["It rains. We stay. She goes."],
    ),
    ("verify_sentence_constraint", {"N": 3, "quantifier": "around"}, ["It rains. We stay."], ["It rains."]),
    (
        "validate_paragraphs",
        {"N": 2, "i": 2, "first_word": "Hello"},
        ["one\n\nHello you"],
        ["Hello\n\none", "Hello"],
    ),
    ("verify_postscript", {"postscript_marker": "P.S."}, ["Bye.\nP.S. One more"], ["Bye.", "Bye.\nP.S."]),
    ("validate_placeholders", {"N": 2}, ["[name] and [address]"], ["[name]"]),
    ("verify_bullet_points", {"N": 2}, ["* a\n* b", "- a\n- b"], ["* a", "* a\n* b\n* c"]),
    ("validate_title", {}, ["<<A title>>\ntext"], ["A title"]),
    ("validate_choice", {"options": ["yes", "no way"]}, ["I say yes."], ["maybe"]),
    ("validate_choice", {"options": "yes/no/maybe"}, ["maybe"], ["never"]),
    ("validate_highlighted_sections", {"N": 2}, ["*one* and *two*"], ["*one*"]),
    (
        "validate_sections",
        {"N": 2, "section_splitter": "Section"},
        ["Section 1\na\nSECTION 2\nb"],
        ["Section 1\na"],
    ),
    ("validate_json_format", {}, ['{"a": 1}'], ["{a: 1}"]),
    ("validate_repeat_prompt", {"original_prompt": "Say it."}, ["Say it. Said."], ["Said. Say it."]),
    ("validate_two_responses", {}, ["one\n******\ntwo"], ["one", "one******one"]),
    ("validate_uppercase", {}, ["ALL OF IT, 1!"], ["ALL OF iT"]),
    ("validate_lowercase", {}, ["all of it, 1!"], ["all of It"]),
    ("validate_frequency_capital_words", {"N": 2, "quantifier": "at least"}, ["I SEE it"], ["See IT"]),
    ("validate_frequency_capital_words", {"N": 1, "quantifier": "at most"}, ["See IT"], ["I SEE it"]),
    ("validate_end", {"end_phrase": "The end."}, ["So. The end."], ["The end. Or not."]),
    ("validate_quotation", {}, ['"All of it."'], ['"some" of it']),
    ("validate_no_commas", {}, ["one; two"], ["one, two"]),
]


def row(function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """As the data have it: every argument there is, null where it is another function's."""
    names = {name for _, given, _, _ in CASES for name in given}
    return {"func_name": function, **dict.fromkeys(sorted(names)), **arguments}


@pytest.mark.parametrize(("function", "arguments", "good", "bad"), CASES)
def test_rows_of_tulu(
    score: Score, function: str, arguments: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    truth = json.dumps(row(function, arguments))
    assert [score("instructions", text, ground_truth=truth) for text in good] == [1.0] * len(good)
    assert [score("instructions", text, ground_truth=truth) for text in bad] == [0.0] * len(bad)
    assert score("instructions", " \n", ground_truth=truth) == 0.0


def test_all_25_functions_are_tested() -> None:
    assert {function for function, _, _, _ in CASES} == set(TULU)
    assert len(TULU) == 25


def test_forms_of_the_column(score: Score) -> None:
    commas, lower = {"func_name": "validate_no_commas"}, {"func_name": "validate_lowercase", "N": None}
    later = [{"instruction_id": ["punctuation:no_comma", "detectable_format:title"], "kwargs": [None, {}]}]
    for truth, share in [
        (commas, 1.0),
        (json.dumps(commas), 1.0),
        (str(lower), 0.0),
        ([commas, lower], 0.5),
        (json.dumps([commas, lower]), 0.5),
        ([json.dumps(commas), json.dumps(lower)], 0.5),
        (later, 0.5),
        (str(later), 0.5),
    ]:
        assert score("instructions", "No comma", ground_truth=truth) == share
    assert score("instructions", "No comma", args={"level": "prompt"}, ground_truth=[commas, lower]) == 0.0
    assert score("instructions", "a,\nno comma", args={"form": "loose"}, ground_truth=commas) == 1.0
    assert score("instructions", "text", ground_truth=None) is None
    assert score("instructions", "a, b", reward_model={"ground_truth": json.dumps(commas)}) == 0.0
    # A row of IFEval says what it asks; its reference is for others.
    asked_for = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": ["{}"]}
    assert score("instructions", "a", ground_truth="42", **asked_for | {"kwargs": "[{}]"}) == 1.0


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("42", "ground_truth: '42' names no instruction"),
        ([], None),
        ({"N": 3}, "names no instruction"),
        ({"func_name": "validate_nothing"}, "unknown instruction kind 'validate_nothing'"),
        ({"func_name": "validate_placeholders"}, "missing a required argument: 'N'"),
        ({"func_name": "validate_placeholders", "N": 1, "word": "a"}, "unexpected keyword argument 'word'"),
        ({"func_name": "validate_word_constraint", "N": 1, "quantifier": "about"}, "quantifier 'about'"),
    ],
)
def test_faulty_rows_of_tulu(score: Score, truth: Any, message: str | None) -> None:
    if message is None:
        assert score("instructions", "text", ground_truth=truth) is None
        return
    with pytest.raises((RewardError, ValueError), match=re.escape(message)):
        score("instructions", "text", ground_truth=truth)


# Kinds of the user's


def test_the_example_of_the_docs(score: Score, repo_root: Path, tmp_path: Path) -> None:
    page = (repo_root / "docs" / "rules.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n# (\S+\.py)\n(.*?)```", page, re.DOTALL)
    assert found is not None
    file = tmp_path / Path(found[1]).name
    file.write_text(found[2], encoding="utf-8")
    args = {"kinds": str(file)}
    asked_for = {
        "instruction_id_list": ["mine:greets", "punctuation:no_comma"],
        "kwargs": [{"name": "Ada"}, {}],
    }
    assert score("instructions", "Hello Ada", args=args, **asked_for) == 1.0
    assert score("instructions", "Hello, Ada", args=args, **asked_for) == 0.0
    assert score("instructions", "Hello Bob", args=args, **asked_for) == 0.5
    assert (
        score(
            "instructions", "Hello Bob", args=args, ground_truth={"func_name": "mine:greets", "name": "Bob"}
        )
        == 1.0
    )
    with pytest.raises(ValueError, match="unknown instruction kind 'mine:greets'"):
        score("instructions", "Hello Ada", **asked_for)
    with pytest.raises(RewardError, match=r"mine:greets: .*missing a required argument: 'name'"):
        score("instructions", "Hello", args=args, instruction_id_list=["mine:greets"], kwargs=[{}])


def test_own_kinds_replace_shipped_ones(score: Score, tmp_path: Path) -> None:
    file = tmp_path / "reward_file.py"
    file.write_text(
        "from align.reward import Sample, reward\n\n@reward\ndef mine(sample: Sample) -> float:\n"
        "    return 1.0\n\n"
        "INSTRUCTIONS = {'punctuation:no_comma': lambda text: ',' in text}\n"
    )
    asked_for = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    assert score("instructions", "a, b", args={"kinds": str(file)}, **asked_for) == 1.0
    assert score("instructions", "a, b", **asked_for) == 0.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("x = 1", "has no mapping INSTRUCTIONS"),
        ("INSTRUCTIONS = {'a': 1}", "has no mapping INSTRUCTIONS"),
        ("import nothing_of_the_kind", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(1)", "cannot be imported: SystemExit"),
    ],
)
def test_faulty_files(score: Score, tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "kinds.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(RewardError, match=message):
        score("instructions", "a", args={"kinds": str(file)}, instruction_id_list=[], kwargs=[])
