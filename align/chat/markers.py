"""Text to tokens so that no text can forge what the chat template writes.

A tokenizer turns ``<|im_end|>`` into the token that ends a turn wherever it is spelt: in the template,
where it is meant, and in a question or an answer, where it lets data end a turn and begin another. Here
only the template's own become tokens; spelt in a message they are ordinary text.

How: before rendering, the markers in messages are replaced by private characters, as many as the marker
has, so that no place in the text moves. After rendering, whatever still spells a marker is the template's.
The text then goes through a *twin* of the tokenizer, equal but for its markers, which are spelt in other
private characters: the template's are given that spelling, and the messages get theirs back. Messages that
spell no marker, nearly all, go through the tokenizer itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from align.chat.frames import closing_of, frame_of
from align.chat.texts import mapped, texts_in
from align.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BARRED = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)
_BRACKETED = re.compile(r"</?[^<>/]+>|\[/?[^\[\]]+\]")
_NAMED = re.compile(r"(?=.*\w)(?=.*[^\w\s]).{2,}", re.DOTALL)
_MARKUP = re.compile(
    r"[<\[]/?(\w+:)?(think|thinking|thought|reasoning|tool_calls?|tool_responses?|function_calls?|arg_key|arg_value"
    r"|answer)[>\]]",
    re.I,
)
"""What answers themselves are made of: reasoning and calls are written inside the text."""
_OURS, _THEIRS = 0xF0000, 0x100000
"""First private characters of the template's markers, and of the messages'."""
_PRIVATE = re.compile("[\U000f0000-\U0010ffff]")


class Encoded(NamedTuple):
    """Tokens and where they stand in the text."""

    ids: list[int]
    """[L] token ids."""
    offsets: list[tuple[int, int]]
    """[L] first character and the one behind the last; empty unless asked for."""


class Guard:
    """One conversation, ready to be rendered any number of times and then tokenised.

    Usage: render ``messages`` and ``tools`` with the chat template, give the text to ``encode``.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None = None,
    ) -> None:
        """Args:
            tokenizer: whose markers are kept apart.
            template: the chat template's source.
            messages: as the template takes them.
            tools: as the template takes them.

        Raises:
            ModelError: a message spells a marker and has private characters too.
        """
        self._tokenizer = tokenizer
        self._markers = markers_of(tokenizer, template)
        self.messages: list[dict[str, Any]] = [dict(message) for message in messages]
        self.tools: list[Any] | None = None if tools is None else list(tools)
        self.hides = self._markers.spelt_in([self.messages, self.tools])
        if self.hides:
            if any(map(_PRIVATE.search, texts_in([self.messages, self.tools]))):
                raise ModelError(
                    "a message spells a special token and has characters of Unicode's private planes",
                    remedy="drop such rows with where:, or take these characters out",
                )
            self.messages = mapped(self.messages, self._markers.hide)
            self.tools = mapped(self.tools, self._markers.hide)

    def shown(self, text: str) -> str:
        """The rendered text as it is to be read: what messages spell stands in it again."""
        return self._markers.twin.shown(text) if self.hides else text

    def encode(self, text: str, *, offsets: bool = False) -> Encoded:
        """Tokens of the rendered text; places are those of ``text``.

        Args:
            text: as the template wrote it.
            offsets: whether places are asked for, which a tokenizer in Python does not know.

        Raises:
            ModelError: a message spells a marker, and this tokenizer cannot keep it apart, or the template
                writes the message in such a way that it cannot.
        """
        if self.hides:
            return self._markers.twin.encode(text)
        encoded = self._tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=offsets, verbose=False
        )
        return Encoded(encoded["input_ids"], encoded["offset_mapping"] if offsets else [])


def is_marker(token: str, *, special: bool, template: str, frame: str, added: frozenset[str]) -> bool:
    """Whether a token of the vocabulary's own list is one that text must not forge.

    Special tokens are, and so is what looks like one (``<｜User｜>`` is none of DeepSeek's special tokens,
    and begins a turn), and what the template writes around messages (``<user>`` and ``</user>``). Not so the
    mark-up that answers contain, ``<think>`` or ``<tool_call>``.

    Args:
        token: its spelling.
        special: as the tokenizer says.
        template: the chat template's source.
        frame: what it writes around messages (``frames.frame_of``).
        added: the spellings of all such tokens.
    """
    if len(token) < 2 or _MARKUP.fullmatch(token):  # a letter is written as it is
        return False
    if special or _BARRED.fullmatch(token) or (token in frame and _NAMED.fullmatch(token)):
        return True
    other_half = token[:1] + token[2:] if token[1] == "/" else closing_of(token)
    return bool(_BRACKETED.fullmatch(token)) and token in template and other_half not in added


@dataclass(frozen=True)
class Markers:
    """What text must not forge, and how it is spelt meanwhile."""

    spellings: tuple[str, ...]
    backend: Any
    """The tokenizer of the library ``tokenizers``; None for one in Python."""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The longest marker at a place."""
        return re.compile("|".join(map(re.escape, sorted(self.spellings, key=len, reverse=True))))

    def spelt_in(self, value: Any) -> bool:
        """Whether any text inside spells a marker, as it is or once it is normalised."""
        if not self.spellings:
            return False
        return any(self.pattern.search(text) or self._comes_to_spell(text) for text in texts_in(value))

    def _comes_to_spell(self, text: str) -> bool:
        """Whether the normaliser makes a marker of it: ``＜s＞`` under NFKC, ``<S>`` in small letters.

        It is text to the twin, which is looked through after its markers have had their private spelling.
        """
        found = self._normalised
        return found is not None and found[1].search(found[0].normalize_str(text)) is not None

    @cached_property
    def _normalised(self) -> tuple[Any, re.Pattern[str]] | None:
        """The normaliser, and markers as they are behind it; None where nothing is normalised."""
        normalizer = None if self.backend is None else self.backend.normalizer
        if normalizer is None:
            return None
        # What it puts in front of every text (▁) belongs to no marker.
        behind = {normalizer.normalize_str(marker).strip(" ▁") for marker in self.spellings} - {""}
        forms = sorted({*self.spellings, *behind}, key=len, reverse=True)
        return normalizer, re.compile("|".join(map(re.escape, forms)))

    def hide(self, text: str) -> str:
        """Private characters in place of markers, as many."""
        return self.pattern.sub(lambda found: self._private(found[0], _THEIRS), text)

    def _private(self, marker: str, base: int) -> str:
        return chr(base + self._number[marker]) * len(marker)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {marker: number for number, marker in enumerate(self.spellings)}

    @cached_property
    def twin(self) -> _Twin:
        """The tokenizer that knows the markers by their private spelling only."""
        if self.backend is None:
            raise _inseparable("it has no tokenizer.json")
        ours = {marker: self._private(marker, _OURS) for marker in self.spellings}
        theirs = {marker: self._private(marker, _THEIRS) for marker in self.spellings}
        return _Twin(_respelt(self.backend, ours), self.pattern, ours, theirs)


_KNOWN: WeakKeyDictionary[Any, dict[tuple[str, int], Markers]] = WeakKeyDictionary()


def markers_of(tokenizer: PreTrainedTokenizerBase, template: str) -> Markers:
    """The markers of a tokenizer under a template; found once."""
    known = _KNOWN.setdefault(tokenizer, {})
    key = template, len(tokenizer)
    if key not in known:
        tokens = {token.content: bool(token.special) for token in tokenizer.added_tokens_decoder.values()}
        tokens |= dict.fromkeys(tokenizer.all_special_tokens, True)
        added = frozenset(tokens)
        frame = frame_of(tokenizer, template, added)
        spellings = sorted(
            token
            for token, special in tokens.items()
            if is_marker(token, special=special, template=template, frame=frame, added=added)
        )
        backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
        known[key] = Markers(tuple(spellings), backend)
    return known[key]


class _Twin:
    """A tokenizer that knows the markers by their private spelling."""

    def __init__(
        self, backend: Any, pattern: re.Pattern[str], ours: dict[str, str], theirs: dict[str, str]
    ) -> None:
        self._backend, self._pattern, self._ours, self._theirs = backend, pattern, ours, theirs

    def shown(self, text: str) -> str:
        """The messages' markers as they spelt them."""
        for marker, hidden in self._theirs.items():
            text = text.replace(hidden, marker)
        return text

    def encode(self, text: str) -> Encoded:
        """Markers in ``text`` are the template's; hidden ones are the messages', and become text."""
        text = self.shown(self._pattern.sub(lambda found: self._ours[found[0]], text))
        # Cut in half, or escaped: by a template that slices messages or writes them as ASCII.
        if any(ord(letter) >= _THEIRS for letter in text) or re.search(r"\\u[dD][bB][c-fC-F]", text):
            raise ModelError(
                "a message spells a special token, and the chat template does not write it as it is",
                key="policy.chat_template",
                remedy="drop such rows with where:, or choose a template that leaves messages as they are",
            )
        encoded = self._backend.encode(text, add_special_tokens=False)
        return Encoded(encoded.ids, encoded.offsets)


def _respelt(backend: Any, spelling: Mapping[str, str]) -> Any:
    """The same tokenizer with other spellings of some tokens, which keep their ids."""
    from tokenizers import Tokenizer

    try:
        tree = json.loads(backend.to_str())
    except Exception as error:  # parts written in Python have no text form
        raise _inseparable(str(error)) from error
    tree["truncation"] = tree["padding"] = None
    for token in tree["added_tokens"]:
        token["content"] = spelling.get(token["content"], token["content"])
    model = tree["model"]
    if model.get("unk_token") in spelling:
        model["unk_token"] = spelling[model["unk_token"]]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {spelling.get(token, token): place for token, place in model["vocab"].items()}
    else:
        model["vocab"] = [[spelling.get(token, token), score] for token, score in model["vocab"]]
    if "merges" in model:  # none may lead to a marker
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [pair for pair in pairs if "".join(pair) not in spelling]
    try:
        twin = Tokenizer.from_str(json.dumps(tree))
    except Exception as error:  # the library raises nothing narrower
        raise _inseparable(str(error)) from error
    lost = [hidden for hidden in spelling.values() if hidden not in _normal(twin, hidden)]
    if lost and any(token["normalized"] and token["content"] in lost for token in tree["added_tokens"]):
        raise _inseparable("its normalizer takes private characters out")
    moved = [
        token["id"] for token in tree["added_tokens"] if twin.token_to_id(token["content"]) != token["id"]
    ]
    if moved:
        raise _inseparable(f"tokens {moved[:3]} would change their numbers")
    return twin


def _normal(tokenizer: Any, text: str) -> str:
    return str(tokenizer.normalizer.normalize_str(text)) if tokenizer.normalizer else text


def _inseparable(reason: str) -> ModelError:
    return ModelError(
        f"a message spells a special token, and this tokenizer cannot keep it apart: {reason}",
        key="policy.tokenizer",
        remedy="use a tokenizer with a tokenizer.json, or drop such rows with where:",
    )
