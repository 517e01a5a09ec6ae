"""What a text takes back, and what a phrase around a number makes of it: alternatives, bounds, operations."""

from __future__ import annotations

import re

_WORD = (
    r"(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|"
    r"nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty)\b"
)
_FIGURE = rf"(?:\d|\\frac|\\sqrt|√|[$€£¥]|{_WORD}|[一二三四五六七八九十两]|[A-Za-z](?:_\w+)?\s*=[^=])"

# "10 or possibly 13", "10 & 13", "10到13"; the words between hold no other figure
_JOINED = re.compile(
    rf"(?:\d|[}})]|{_WORD})(?![\d.,]*\d{{3}}\b\s*$)[^\d\n=。；]{{0,40}}?"
    r"(?:\b(?:or|and|to|vs|versus|through|till|until|maybe|perhaps|possibly|probably|alternatively)\b|"
    r"[&|~～、;；]|\\(?:sim|mid|lor|land|vee|wedge|quad|qquad|&)(?![a-z])|[或到至和与及]|还是|也许|可能)"
    rf"[^\d\n=。；]{{0,25}}?(?<![A-Za-z.])[-+(]?\s*{_FIGURE}",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    r"(?:[√∛∜]|\b(?:roots?|squares?|cubes?|half|halves|thirds?|quarters?|factorial|log|logarithm|sum|product|"
    r"multiples?|factors?|divisors?|powers?|reciprocal|inverse|opposite|fraction|percent|percentage|part) of|"
    r"\bhalf(?: of)?|\btwice|\bdouble|\btriple|\bthrice|(?<!\\)\btimes|\bat (?:most|least)|"
    r"\babove|\bbelow|\bover|"
    r"\bunder|\bbeyond|\bexceed(?:s|ing)?|\b(?:more|less|fewer|greater|larger|smaller|higher|"
    r"lower|bigger) than|"
    r"\bup to|\bwithin|\bbetween|\bnot (?:quite|exactly|even)|\b(?:no|neither) (?:more|less|fewer)|"
    r"\b(?:wrong|incorrect|false)\W|大于|小于|超过|低于|高于|少于|多于|不足|不到|不超过|不大于|不小于|至多|至少|"
    r"根号|第|[乘除减加]以?|等于或|除了)"
    rf"\s*(?:or equal to\s+|the number\s+|是|为)?\(?[$€£¥]?\s*-?(?:\d|{_WORD}|[一二三四五六七八九十])",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"(?:\d|[A-Za-z])\)?\s*(?:\b(?:squared|cubed|factorial|doubled|tripled|halved|raised|divided|multiplied|plus|"
    r"minus|modulo|mod)\b|\bto the\b|(?<!\\)\btimes\s+(?:\S*\d|[A-Za-z]\b)|"
    r"\b(?:written )?in (?:base|binary|octal|hex)|"
    r"\b(?:or|and) (?:more|less|fewer|so|greater|above|over|higher|under|below|up|a (?:half|"
    r"quarter|third))\b|"
    r"\b(?:more|less|fewer|greater) than\b|\bper ?cent of\b|%\s*of\b)|"
    r"\d\s*[^\d\s，。,.]{0,3}(?:以[上下内外]|之[间内外])|\d\s*(?:的|多|余(?!下)|次方|平方(?![千厘分毫]?[米克])|"
    r"立方(?![千厘分毫]?米)|进制|开外|上下)",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(?:not|instead of|rather than|unlike)\b|n['’]t\b|不是|而非|并非")

_DENIAL = (
    r"(?:n['’]t|\bnot|\bnever|\bhardly|(?<!no )(?<!without )\bdoubt|\bfalse|\bwrong|\bincorrect|"
    r"\bnobody|\bno one|\bden(?:y|ies)|"
    r"\bimpossible|\bunlikely|不认为|不能说|不可能|并非|不相信|怀疑)"
)
_HELD = (
    r"(?:that|the|my|your|our|this|a|be|true|case|correct|right|final|so|possible|sure|certain|likely|convinced|"
    r"think|thinks|believe|believes|say|says|claim|claims|mean|agree|accept|suppose|here)\b"
)
_WRONG = (
    r"(?:\bthat|\bthis|\bit|\bwhich|\bthey|\bhe|\bshe)(?:['’]s|\s+(?:is|was|are|were|would be|"
    r"turns out to be|"
    r"seems))\s+(?:\w+ly\s+)?(?:wrong|incorrect|false|mistaken|an? (?:error|mistake)|impossible|"
    r"not (?:right|correct|true|so|it|possible))|是(?:错误?的|不对的)|(?:这|那|[。，,]\s*)(?:是)?(?:不对|错)"
)
_TAKEN_BACK = re.compile(
    # "I don't think the answer is 6", "the wrong answer is 6"
    rf"(?:(?<![^.\n。；])[^.\n。；]{{0,300}}?)?{_DENIAL}(?:\s+{_HELD})*\s*(?:\b(?:answer|option|"
    rf"choice)|答案|选项)\s*(?:is|was|are|would be|[是为])[^\n。；]{{0,300}}?"
    r"(?=[.。；](?:\s|$)|\n|$|,\s*(?:it|the|so)\b|[,，]\s*而是|;)|"
    # "Some say the answer is 6, but that is wrong", "The answer is 6. Wait, that is wrong"
    rf"(?:(?<![^.\n。；])[^.\n。；]{{0,300}}?)?(?:\b(?:answer|option|choice)|答案|选项)[^\n。；]{{0,120}}?(?:{_WRONG})[^.,，\n。；]{{0,300}}",
    re.IGNORECASE,
)
_DENIED_BOX = re.compile(
    r"(?:\b(?:not|never|anything but)|n['’]t|不是)\s+(?:equal to\s+|"
    r"be\s+)?\$*\s*\\boxed\s*\{[^{}]{0,80}\}\$*|"
    r"\\boxed\s*\{[^{}]{0,80}\}\$*\s*(?:is|was)\s+(?:\w+ly\s+)?(?:wrong|incorrect|false|"
    r"not (?:the|right|correct))",
    re.IGNORECASE,
)
_WRONG_NUMBER = re.compile(
    r"(?<![\d.,])\d[\d.,]{0,30}[^\s\d]{0,10}\s{0,3}"
    r"(?:(?:is|was|are|would be|must be|seems)\s{1,3}(?:\w{1,12}ly\s)?"
    r"(?:wrong|incorrect|false|not (?:right|correct|it|the))|(?:是)?(?:不对|错))[^.,;，\n。；]*",
    re.IGNORECASE,
)
_CORRECTED = re.compile(
    r"(?:,\s*no,?(?=\s+\$?\d)|"
    r"\b(?:but|no|wait|sorry|oops)\b,?\s*(?:\b(?:no|wait|actually|in fact|really|rather|I mean)\b,?\s*)*"
    r"(?:it|that|this|the answer)(?:['’]s|\s+(?:is|should be|must be|equals))|\b(?:but|or) rather|\bI mean|"
    r"\b(?:but|no|wait),? actually(?: it is| it['’]s)?|不对?[，,]?\s*(?:应该?|其实|实际上?)是)\s+(?=\S*\d)",
    re.IGNORECASE,
)
_LAST = 4000  # characters of a text that are looked at
_PART = re.compile(r"[,;、；&]|\\\\|\\q?quad(?![a-z])|\b(?:or|and|then)\b|[或和及]")
_CONCLUDED = re.compile(r"\b(?:so|thus|hence|therefore|giving)\b|所以|因此|即|\\(?:implies|Rightarrow)|⇒|=>")
_INNER = re.compile(r"\([^()]*\)|\{[^{}]*\}|\[[^\[\]]*\]")


def undenied(text: str) -> str:
    """The text without the statements about an answer that it denies or takes back."""
    if re.search(r"[Aa]nswer|[Oo]ption|[Cc]hoice|答案|选项", text) and re.search(
        f"{_DENIAL}|{_WRONG}", text, re.IGNORECASE
    ):
        text = text[:-_LAST] + _TAKEN_BACK.sub(" ", text[-_LAST:])
    text = text[:-_LAST] + _WRONG_NUMBER.sub(" ", text[-_LAST:])
    return _DENIED_BOX.sub(" ", text) if "boxed" in text else text


def corrected(sentence: str) -> str:
    """The rest of a sentence after its last correction ("18, no wait, it is 20")."""
    return _CORRECTED.split(sentence)[-1]


def qualified(phrase: str) -> bool:
    """Whether a phrase says something else of its number: a choice, a range, a bound, an operation."""
    phrase = _NEGATED.split(phrase, maxsplit=1)[0]
    return bool(_BEFORE.search(phrase) or _AFTER.search(phrase) or _JOINED.search(phrase))


def at_equals(text: str) -> tuple[str, str]:
    """A text on both sides of its last equals sign that is in no bracket and no index: P(X=3) has none."""
    if "=" not in text:
        return "", text
    depth, last = 0, -1
    for at, sign in enumerate(text):
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth = max(0, depth - 1)
        elif sign == "=" and not depth:
            last = at
    if last < 0:
        inner = text.strip(" $")
        wrapped = len(inner) > 1 and inner[0] == "(" and inner[-1] == ")"
        return at_equals(inner[1:-1]) if wrapped else ("", text)
    return text[:last], text[last + 1 :]


def parts(text: str) -> list[str]:
    """The pieces of a list at its top level; one for anything else."""
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", _CONCLUDED.split(text)[-1])
    text = re.sub(r"\\(?:text|mathrm)\s*\{([^{}]*)\}", r" \1 ", text)
    before = ""
    while text != before:
        before, text = text, _INNER.sub(" ", text)
    return [piece for piece in _PART.split(text) if piece.strip(" $.\\*")]
