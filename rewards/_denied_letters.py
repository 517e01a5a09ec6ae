"""Options that a text rejects: "not (B)", "B is wrong", 不选B."""

from __future__ import annotations

import re

_OPTION = (
    r"(?:(?:the |an? )?(?:option|choice|letter|answer|"
    r"选项) ?)?[\"'“(\[{「]{0,3}[A-Z](?![A-Za-z0-9_'’])[\"'”)\]}」]{0,3}"
)
_OPTIONS = rf"{_OPTION}(?: ?(?:[,/&、]|\b(?:and|or|nor)\b|和|或|与)+ ?{_OPTION}){{0,5}}"
_NOT = re.compile(
    r"(?:\b(?:not|never|cannot be|anything but|neither|rules? out|ruled out|eliminated?|"
    r"eliminating|excluded?|"
    r"excluding|instead of|rather than|except)|n['’]t|(?<!是)不(?:应该?|能|可能)?(?:是|选择?|为)|并非|排除)"
    r"(?: (?:be|to|choose|pick|select|go with|either|both|the|correct|right|answer))* ?"
    rf"{_OPTIONS}(?P<other>(?:[,;.] ?| )(?:but(?: rather)?|it['’]s|it is|rather|instead)(?: it is)? |"
    r"[,;。]? ?(?:而是|应该?是|而?应?选择?|是))?",
    re.IGNORECASE,
)
_WRONG = re.compile(
    rf"(?<![A-Za-z0-9_]){_OPTIONS} ?(?:选项|项)?(?:都|均|也)? ?(?:"
    r"(?:(?:is|are|was|were|looks?|seems?|must be)|(?:can|could|does|do) ?(?=not|n['’]t))"
    r"(?: (?:clearly|also|both|all|obviously|definitely|therefore|thus|just|simply|plainly))*"
    r"(?: (?:wrong|incorrect|false|untrue|out|eliminated|excluded|impossible|ruled out|mistaken|an error)\b|"
    r"(?:n['’]t| ?not|not) (?:be )?(?:the |an? )?(?:correct|right|true|answer|best|possible|valid|work))|"
    r"cannot (?:be )?(?:the )?(?:correct|right|true|answer|best|possible|valid|work)|"
    r"(?:是|为)?(?:错误?|不对|不正确|不符|不成立|不可能|被排除)的?)",
    re.IGNORECASE,
)


def accepted(text: str) -> str:
    """The text without the options that it rejects; "not B but C" leaves C in its place."""
    return _NOT.sub(_instead, _WRONG.sub(" rejected", text))


def _instead(found: re.Match[str]) -> str:
    other = found["other"]
    if not other:
        return " not"
    return "选" if "选" in other else "是" if re.search("[而应是]", other) else " "
