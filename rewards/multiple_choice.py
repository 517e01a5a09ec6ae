"""Multiple choice: 1 where the answer names the letter in the column ``answer``, else 0.

The letter is looked for, in this order: in the last ``\\boxed{…}`` or after the last "answer is",
"Answer:", "I choose", "选" and the like, whichever comes later; alone on the last line; and else marked as
an option anywhere: ``B.`` or ``B)`` at the start of a line, ``(B)``, "option B". A letter of a formula
(``C = 2\\pi r``, ``P(A)``) names no option. A place that names two different letters is ambiguous and counts
as no letter, and so does an answer that only repeats the text of an option.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from align.reward import Sample, reward

from ._boxes import of_one_list
from ._choices import apart, by_text, option_texts, right_letters
from ._claims import undenied
from ._denied_letters import accepted
from ._final_answer import spoken

_OPTION_LINE = re.compile(r"(?m)^[ \t>*-]*\(?([A-Z])[.):、][ \t]*\S")
_DECORATION = re.compile(r"[*_`$]+|\\[()\[\]]|\\(?:text|mathrm|mathbf|textbf)(?=\{)|\\boxed(?!\s*\{)")
_BOX = re.compile(r"\\boxed\s*\{+\s*([^{}]*)(\}?)")
_BOX_OPTION = re.compile(
    r"(?:(?:the )?(?:correct )?(?:option|choice|answer|选项|答案)\b[: ]*)?\(?([A-Z])[).:、]+\s*",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"[=+*/^_<>|\\\d≈≤≥≠∈()]")
# A letter that an option mark or the end follows, or other words; "A dog", "I think" and "E.T." are none.
_LETTER = (
    r"[\"'“(\[{<「『【]*(?P<letter>[A-Z])(?![A-Za-z0-9_]|\.\w\.)"
    r"(?![ )]*[=+*^≈≤≥≠∈<\\]|[ )]*-+ ?\d| ?/ ?\d| > )"
    r"(?:[\"'”)\]}>」』】]* ?(?:$|[.,:;!?)\]}>\n(/&–—。、；|-]|选?项|[是因但而或和与])|"
    r"(?<![AI]) | (?:because|since|as|is|for|or|and|with|option|based|given)\b)"
)
_SIGNAL = re.compile(
    r"(?:\b(?:answer|option|choice|letter|selection)s? ?(?:\([^()\n]{1,20}\) ?)?"
    r"(?:is|are|was|(?:would|should|must|will) be|[:=])|"
    r"\b(?:i|we)(?:['’]d|['’]ll| would| will| must)? (?:choose|chose|pick|select|go with)|"
    r"\b(?:wait|actually|sorry|rather|correction),? (?:(?:actually|no|it['’]s|it is|that['’]s),? ?)*|"
    r"(?<!in)(?:\bcorrect|\bright|\bbest) (?:one|statement) (?:is|:)|"
    r"(?:答案|选项)】? ?(?:应该|应当)?(?:是|为|选|:)|答案】|(?<!不)正确的?(?:一?[项个])?(?:是|为|:)|选(?:择|"
    r"项)?|(?:认为|觉得)(?:应该)?(?:是|选))"
    r"[:\s]*(?:(?:clearly|most likely|probably|definitely|therefore|simply|either|both) )?"
    r"(?:(?:the )?(?:correct )?(?:option|choice|answer|letter):? ?)?" + _LETTER,
    re.IGNORECASE,
)
_SECOND = re.compile(
    r"[)\]}>.」]* ?(?:(?:[,;/&|、]|\b(?:or|and|maybe|perhaps|possibly|probably|even|also|vs)\b|或者?|"
    r"和|与|还是|"
    r"(?<=\)) ?(?=\()|\(or) ?)+(?:option )?\(?"
    r"([B-HJ-Z]|[AI](?! [a-z]))(?![\w'’]| (?:is|are|was|has|does|would)\b)"
)
# "B is correct", B选项正确; "Thus, B."
_PRAISED = re.compile(
    r"(?<![A-Za-z0-9_.'’])(?:\(?([A-Z])\)? ?(?:,|and|or|和|、) ?)?\(?([A-Z])\)? ?(?:"
    r"(?:is|are) (?:(?:both|clearly|definitely|indeed|therefore|thus|the|a|most|only|my|final) )*"
    r"(?:correct|right|best|answers?)\b(?! (?:about|that|to|in|triangle|angle))|"
    r"(?:选?项)?(?:都|均)?(?:是|为)?(?:正确|对(?=[的。,]|$)|答案))|"
    r"(?:\b[Tt]hus|\b[Ss]o|\b[Hh]ence|\b[Tt]herefore|\b[Ii]t is|\b[Ii]t['’]s|"
    r"^[Dd]efinitely|^[Cc]ertainly|^[Pp]robably|所以|因此|故),? ?"
    r"\(?([A-Z])\)?(?=[.!。]*(?:\s|$))(?!\.? [a-z])|"
    r"^([A-Z])(?=, (?:because|since|as)\b)",
    re.MULTILINE,
)
_ALONE = re.compile(r"[\"'(\[{<]*([A-Za-z])[.\"')\]}>]*")
_MARKED = re.compile(
    r"^[ >#-]*(?:\(?([A-Z])(?:[.):、](?=\s|$|[\u4e00-\u9fff])| [–—-] (?![A-Z\d]\b))|([A-Z])$)|"
    r"(?<![A-Za-z])\(([A-Z])\)(?! ?[=+*^<\\])|"
    r"\b(?:[Oo]ption|[Cc]hoice|选项) ?(?:\(?([A-Z])(?!\w)|\(([a-z])\))",
    re.MULTILINE,
)


@reward
def multiple_choice(sample: Sample) -> float | None:
    """1 where the answer names the letter in the column ``answer``, else 0; abstains where that is null."""
    truth = sample["answer"]
    if truth is None:
        return None
    texts = option_texts(sample.columns.get("choices"))
    wanted = right_letters(truth, texts)
    asked = "\n".join(message["content"] for message in sample.prompt if message["role"] == "user")
    allowed = "".join(texts) or options(asked)
    if len(wanted) > 1:
        return float(named(apart(sample.completion), allowed) == wanted)
    return float((chosen(sample.completion, allowed) or by_text(spoken(sample.completion), texts)) in wanted)


def options(prompt: str) -> str:
    """Letters of the options that a prompt lists line by line from A on; all letters where it lists none."""
    listed = set(_OPTION_LINE.findall(prompt))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    count = next((place for place, letter in enumerate(alphabet) if letter not in listed), 26)
    return alphabet[:count] if count > 1 else alphabet


def chosen(text: str, allowed: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ") -> str | None:
    """The one letter that a text chooses; None where it names none, or several at the deciding place."""
    letters = named(text, allowed)
    return letters.pop() if len(letters) == 1 else None


def named(text: str, allowed: str) -> set[str]:
    """The letters that a text names at the place that decides."""
    text = _plain(text)
    (box, boxed), (phrase, signalled) = _boxed(text), _signalled(text)
    first = (boxed, signalled) if box > phrase else (signalled, boxed)
    for place in (*first, _last_line(text), _found(_PRAISED, text), _found(_MARKED, text)):
        letters = {letter.upper() for letter in place} & set(allowed)
        if letters:
            return letters
    return set()


def _plain(text: str) -> str:
    """The text after its reasoning, in narrow signs, without emphasis, formula signs and gaps."""
    text = undenied(unicodedata.normalize("NFKC", spoken(text)))
    text = _DECORATION.sub("", re.sub(r"</?answer>", "\n", text))
    return accepted(re.sub(r"\n[\n ]*", "\n", re.sub(r"[^\S\n]+", " ", text)).strip())


def _boxed(text: str) -> tuple[int, Iterable[str]]:
    """Where the last box stands, and the letters that it names; none where it holds a formula."""
    boxes = list(_BOX.finditer(text))
    if not boxes or not boxes[-1][2]:
        return -1, ()
    start, letters = boxes[-1].start(), _in_box(boxes[-1][1].strip())
    letters += _further(text, boxes[-1].end()) if letters else []
    later = boxes[-1]
    for box in reversed(boxes[-10:-1]):  # boxes of one list count together
        if not letters or not of_one_list(text[box.end() : later.start()]):
            break
        letters, later = [*letters, *_in_box(box[1].strip())], box
    return (start, letters) if letters else (-1, ())


def _in_box(content: str) -> list[str]:
    """The letters that the content of a box names; none where it is a formula."""
    option = _BOX_OPTION.match(content)
    if option and not re.match(r"[=+*/^<>]", content[option.end() :]):
        rest = content[option.end() :].strip("() ")
        return [option[1], *(re.findall(r"^\(?([A-Z])\)?$", rest))]
    words = re.sub(r"\(([A-Za-z])\)|([A-Z])/(?=[A-Z]$)", r" \1\2 ", content)
    if _FORMULA.search(words) or re.search(r"(?<!\w)-|-(?!\w)", words):
        return []
    return re.findall(r"(?<![A-Za-z])(?![AI] (?!and |or )[a-z])[A-Za-z](?![A-Za-z'’])", words)


def _signalled(text: str) -> tuple[int, Iterable[str]]:
    """Where the last phrase that announces a choice stands, and the letters that it names."""
    found = list(_SIGNAL.finditer(text))
    if not found:
        return -1, ()
    return found[-1].start(), [found[-1]["letter"], *_further(text, found[-1].end("letter"))]


def _further(text: str, at: int) -> list[str]:
    """The letters that follow a letter: "A, C and D"."""
    found = []
    while second := _SECOND.match(text, at):
        found.append(second[1])
        at = second.end()
    return found


def _last_line(text: str) -> Iterable[str]:
    line = text.rpartition("\n")[2].strip()
    alone = _ALONE.match(line)
    if alone is None:
        return ()
    more = _further(line, alone.end())
    rest = line[alone.end() :] if not more else line[line.rfind(more[-1]) + 1 :]
    return [] if rest.strip(" .)") else [alone[1], *more]


def _found(pattern: re.Pattern[str], text: str) -> Iterable[str]:
    return [letter for groups in pattern.findall(text) for letter in groups if letter]
