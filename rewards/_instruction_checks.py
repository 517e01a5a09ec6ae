"""The 25 kinds of checkable instruction of IFEval (arXiv 2311.07911, table 1).

A check takes an answer and the keyword arguments of its instruction, and says whether the answer
follows it. The edges (what counts as a word, a highlight, a section) are those of the published
verdicts; ``docs/rules.md`` gives the agreement.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from langdetect import DetectorFactory, LangDetectException, detect

from ._languages import chinese, code_of
from ._sentences import capital_words, sentences

Check = Callable[..., bool]
CHECKS: dict[str, Check] = {}

_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_POSTSCRIPTS = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}

DetectorFactory.seed = 0  # langdetect samples n-grams: unseeded, short texts change their language


def check(kind: str) -> Callable[[Check], Check]:
    """Enter a function as the check of a kind."""

    def enter(function: Check) -> Check:
        CHECKS[kind] = function
        return function

    return enter


@check("keywords:existence")
def has_keywords(text: str, keywords: Iterable[str]) -> bool:
    """Every keyword occurs, also inside a longer word, in any case."""
    lowered = text.lower()
    return all(word.lower() in lowered for word in keywords)


@check("keywords:forbidden_words")
def lacks_words(text: str, forbidden_words: Iterable[str]) -> bool:
    """No forbidden word occurs as a word of its own, in any case."""
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words)


@check("keywords:frequency")
def keyword_count(text: str, keyword: str, relation: str, frequency: int) -> bool:
    """The keyword occurs so often, also inside longer words, in any case."""
    return _compare(text.lower().count(keyword.lower()), relation, frequency)


@check("keywords:letter_frequency")
def letter_count(text: str, letter: str, let_relation: str, let_frequency: int) -> bool:
    """The letter (or sign) occurs so often, in any case."""
    return _compare(text.lower().count(letter.lower()), let_relation, let_frequency)


@check("language:response_language")
def in_language(text: str, language: str) -> bool:
    """The answer is in the language, a code or a name; a text without letters is in any. ``zh`` is Chinese
    in either script."""
    wanted = code_of(language)
    found = _language(text)
    if wanted.startswith("zh") and found is not None:
        return found.startswith("zh") and (wanted == found or "zh" in {wanted, found})
    return found in {wanted, None}


@check("length_constraints:number_sentences")
def sentence_count(text: str, relation: str, num_sentences: int) -> bool:
    """The answer has so many sentences."""
    return _compare(len(sentences(text)), relation, num_sentences)


@check("length_constraints:number_words")
def word_count(text: str, relation: str, num_words: int) -> bool:
    """The answer has so many words: runs of letters, digits and underscores."""
    return _compare(len(re.findall(r"\w+", text)), relation, num_words)


@check("length_constraints:number_paragraphs")
def paragraph_count(text: str, num_paragraphs: int) -> bool:
    """``***`` parts the answer into exactly so many paragraphs, none of them empty."""
    return _filled(text, "***") == num_paragraphs


@check("length_constraints:nth_paragraph_first_word")
def nth_paragraph(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Blank lines part the answer into so many paragraphs, and the n-th starts with the word."""
    paragraphs = text.split("\n\n")
    filled = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    # The n-th is counted with the empty ones, as the published verdicts do.
    if filled != num_paragraphs or nth_paragraph > filled or not paragraphs[nth_paragraph - 1].strip():
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower() == first_word.lower()


@check("detectable_content:number_placeholders")
def placeholder_count(text: str, num_placeholders: int) -> bool:
    """The answer has at least so many ``[placeholders]``."""
    closed = re.findall(r"\[[^\]\n]*(\]?)", text)  # an open bracket takes the rest of its line: linear time
    return closed.count("]") >= num_placeholders


@check("detectable_content:postscript")
def postscript(text: str, postscript_marker: str) -> bool:
    """The answer has a postscript that starts with the marker."""
    marker = _POSTSCRIPTS.get(postscript_marker.strip(), re.escape(postscript_marker.strip().lower()))
    return re.search(marker, text.lower()) is not None


@check("detectable_format:number_bullet_lists")
def bullet_count(text: str, num_bullets: int) -> bool:
    """The answer has exactly so many lines that start with ``* `` or ``-``."""
    lines = (line.strip() for line in text.split("\n"))
    return sum(re.match(r"\*[^*]|-", line) is not None for line in lines) == num_bullets


@check("detectable_format:constrained_response")
def constrained(text: str) -> bool:
    """The answer contains one of the three allowed sentences."""
    return any(option in text for option in _OPTIONS)


@check("detectable_format:number_highlighted_sections")
def highlight_count(text: str, num_highlights: int) -> bool:
    """The answer has at least so many ``*highlights*`` or ``**highlights**`` inside one line."""
    single = [found for found in re.findall(r"\*[^\n*]*\*", text) if found.strip("*").strip()]
    double = [found for found in re.findall(r"\*\*[^\n*]*\*\*", text) if found[2:-2].strip()]
    return len(single) + len(double) >= num_highlights


@check("detectable_format:multiple_sections")
def section_count(text: str, section_spliter: str, num_sections: int) -> bool:
    """The answer has at least so many headings such as ``SECTION 1``."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


@check("detectable_format:json_format")
def is_json(text: str) -> bool:
    """The whole answer is JSON, bare or in one fenced block."""
    try:
        json.loads(re.sub(r"^```(?:json)?|```$", "", text.strip(), flags=re.IGNORECASE))
    except (ValueError, RecursionError):
        return False
    return True


@check("detectable_format:title")
def has_title(text: str) -> bool:
    """The answer has a ``<<title>>`` on one line."""
    for line in text.split("\n"):
        _, opened, rest = line.partition("<<")
        title, closed, _ = rest.rpartition(">>")
        if opened and closed and title.lstrip("<").rstrip(">").strip():
            return True
    return False


@check("combination:two_responses")
def two_responses(text: str) -> bool:
    """``******`` parts the answer into two different responses."""
    parts = [part.strip() for part in text.split("******")]
    return _filled(text, "******") == 2 and len(set(filter(None, parts))) == 2


@check("combination:repeat_prompt")
def repeats_prompt(text: str, prompt_to_repeat: str) -> bool:
    """The answer starts with the prompt, in any case."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


@check("startend:end_checker")
def ends_with(text: str, end_phrase: str) -> bool:
    """The answer ends with the phrase, in any case; a closing quotation mark may follow."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


@check("startend:quotation")
def quoted(text: str) -> bool:
    """The whole answer stands in double quotation marks."""
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


@check("change_case:capital_word_frequency")
def capital_word_count(text: str, capital_relation: str, capital_frequency: int) -> bool:
    """The answer has so many words in capitals."""
    return _compare(capital_words(text), capital_relation, capital_frequency)


@check("change_case:english_capital")
def english_capital(text: str) -> bool:
    """The answer is English, in capitals only."""
    return text.isupper() and _language(text) in {"en", None}


@check("change_case:english_lowercase")
def english_lowercase(text: str) -> bool:
    """The answer is English, without capitals."""
    return text.islower() and _language(text) in {"en", None}


@check("punctuation:no_comma")
def no_comma(text: str) -> bool:
    """The answer has no comma."""
    return "," not in text


def _compare(count: int, relation: str, bound: int) -> bool:
    if relation == "at least":
        return count >= bound
    if relation == "less than":
        return count < bound
    raise ValueError(f"relation {relation!r} is neither 'at least' nor 'less than'")


def _filled(text: str, divider: str) -> int | None:
    """Number of parts with text; None where one between two dividers is empty."""
    parts = [part.strip() for part in text.split(divider)]
    return sum(map(bool, parts)) if all(parts[1:-1]) else None


@lru_cache(maxsize=64)
def _language(text: str) -> str | None:
    """ISO 639-1 code (also zh-cn, zh-tw), or None for a text without letters."""
    if script := chinese(text):  # langdetect takes short or traditional Chinese for Korean
        return script
    try:
        return str(detect(text))
    except LangDetectException:
        return None
