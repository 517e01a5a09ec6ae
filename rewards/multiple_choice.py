"""Multiple choice: 1 where the answer names the letter in the column ``answer``, else 0.

The letter is looked for, in this order: in the last ``\\boxed{…}``; after the last "answer is",
"Answer:", "I choose", "选" and the like; alone on the last line; and else marked as an option anywhere:
``B.`` or ``B)`` at the start of a line, ``(B)``, "option B". A place that names two different letters is
ambiguous and counts as no letter, and so does an answer that only repeats the text of an option.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from align.reward import Sample, reward

_OPTION_LINE = re.compile(r"(?m)^[ \t>*-]*\(?([A-Z])[.):、][ \t]*\S")
_DECORATION = re.compile(r"[*_`$]+|\\[()\[\]]|\\(?:text|mathrm|mathbf|textbf)(?=\{)|\\boxed(?!\s*\{)")
_BOX = re.compile(r"\\boxed\s*\{+\s*([^{}]*)\}")
# A letter that an option mark or the end follows, or other words; "A dog", "I think" and "E.T." are none.
_LETTER = (
    r"[\"'“(\[{<]*(?P<letter>[A-Z])(?!\w|\.\w\.)"
    r"(?:[\"'”)\]}>]* ?(?:$|[.,:;!?)\]}>\n(/&–—。、；-])|"
    r"(?<![AI]) | (?:because|since|as|is|for|or|and|with|option|based|given)\b)"
)
_SIGNAL = re.compile(
    r"(?:\b(?:answer|option|choice|letter|selection) ?(?:\([^()\n]{1,20}\) ?)?"
    r"(?:is|are|was|(?:would|should|must|will) be|[:=])|"
    r"\b(?:i|we)(?:['’]d|['’]ll| would| will| must)? (?:choose|chose|pick|select|go with)|"
    r"(?:答案|选项) ?(?:应该|应当)?(?:是|为|选|:)|选(?:择|项)?)"
    r"[:\s]*(?:(?:clearly|most likely|probably|definitely|therefore|simply|either|both) )?"
    r"(?:(?:the )?(?:correct )?(?:option|choice|answer|letter):? ?)?" + _LETTER,
    re.IGNORECASE,
)
_SECOND = re.compile(
    r"[)\]}>.]* ?(?:[,/&、]|\b(?:or|and)\b|或|和)+ ?(?:option )?\(?([B-HJ-Z]|[AI](?! [a-z]))(?![\w'’])"
)
_ALONE = re.compile(r"[\"'(\[{<]*([A-Za-z])[.\"')\]}>]*")
_MARKED = re.compile(
    r"^[ >#-]*(?:\(?([A-Z])(?:[.):、](?=\s|$)| [–—-] )|([A-Z])$)|\(([A-Z])\)|"
    r"\b(?:[Oo]ption|[Cc]hoice|选项) ?\(?([A-Z])(?!\w)",
    re.MULTILINE,
)


@reward
def multiple_choice(sample: Sample) -> float | None:
    """1 where the answer names the letter in the column ``answer``, else 0; abstains where that is null."""
    truth = sample["answer"]
    if truth is None:
        return None
    letter = _ALONE.fullmatch(str(truth).strip())
    if letter is None:
        raise ValueError(f"column 'answer' holds {truth!r}, which is not one letter")
    text = "\n".join(message["content"] for message in sample.prompt if message["role"] == "user")
    return float(chosen(sample.completion, options(text)) == letter[1].upper())


def options(prompt: str) -> str:
    """Letters of the options that a prompt lists line by line from A on; all letters where it lists none."""
    listed = set(_OPTION_LINE.findall(prompt))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    count = next((place for place, letter in enumerate(alphabet) if letter not in listed), 26)
    return alphabet[:count] if count > 1 else alphabet


def chosen(text: str, allowed: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ") -> str | None:
    """The one letter that a text chooses; None where it names none, or several at the deciding place."""
    text = _plain(text)
    for place in (_boxed(text), _signalled(text), _last_line(text), _marked(text)):
        letters = {letter.upper() for letter in place} & set(allowed)
        if letters:
            return letters.pop() if len(letters) == 1 else None
    return None


def _plain(text: str) -> str:
    """The text after its reasoning, in narrow signs, without emphasis, formula signs and gaps."""
    text = unicodedata.normalize("NFKC", text.rpartition("</think>")[2])
    text = _DECORATION.sub("", re.sub(r"</?answer>", "\n", text))
    return re.sub(r"\n[\n ]*", "\n", re.sub(r"[^\S\n]+", " ", text)).strip()


def _boxed(text: str) -> Iterable[str]:
    boxes = _BOX.findall(text)
    return re.findall(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z'’])", boxes[-1]) if boxes else ()


def _signalled(text: str) -> Iterable[str]:
    found = list(_SIGNAL.finditer(text))
    if not found:
        return ()
    second = _SECOND.match(text, found[-1].end("letter"))
    return [found[-1]["letter"], *(second.groups() if second else ())]


def _last_line(text: str) -> Iterable[str]:
    alone = _ALONE.fullmatch(text.rpartition("\n")[2].strip())
    return [alone[1]] if alone else ()


def _marked(text: str) -> Iterable[str]:
    return [letter for groups in _MARKED.findall(text) for letter in groups if letter]
