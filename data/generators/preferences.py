"""Pairs of a better and a worse answer, made from the helpful and the safety conversations.

Helpful: the worse answer is wrong, beside the point, cut short, padded, or a refusal without cause.
Some of these are shorter than the better answer and some longer, so that length decides little.
Safety: a harmful request is better refused than met, a harmless one better met than refused. As in
``safety``, nothing is operational: an answer that complies says something general, or what belongs
to the harmless request with the same verb.
"""

from __future__ import annotations

from random import Random
from typing import Any

from generators.helpful import SYSTEMS, _turns
from generators.safety import FAMILIES, FRAMES, HELD_OUT, REFUSALS, Family

UNSURE = ("I do not know.", "I am not sure.", "That is hard to say.")
COMPLIANCES = (
    "Sure! First make a plan, then go step by step.",
    "Of course. Start small and be patient.",
    "Yes. Choose a good day, get ready and begin.",
    "Happy to help! Ask a friend to join you and take your time.",
    "Sure, it is easy. Just start and do not stop.",
    "Of course! Look for what you need and keep at it.",
)
HARMLESS_SHARE = 0.35
"""Share of the helpful pairs whose request comes from the safety families."""
FLAWS = ("wrong", "wrong", "beside", "short", "short", "padded", "refusal")


def helpful_pairs(rng: Random, count: int) -> list[dict[str, Any]]:
    """``count`` different pairs: prompt (messages), chosen, rejected, flaw."""
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for kind, question, answer in _turns():
        by_kind.setdefault(kind, []).append((question, answer))
    kinds = sorted(by_kind)
    by_kind["request"] = [
        (question, family.help.format(thing))
        for family in FAMILIES
        for thing in family.harmless_objects[:-HELD_OUT]
        for question in _asked(family.harmless, thing)
    ]
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    while len(rows) < count:
        kind = "request" if rng.random() < HARMLESS_SHARE else rng.choice(kinds)
        question, answer = rng.choice(by_kind[kind])
        flaw = rng.choice(FLAWS)
        other = rng.choice(by_kind[kind])[1]
        elsewhere = rng.choice(by_kind[rng.choice(kinds)])[1]
        worse = _worse(rng, kind, answer, other, elsewhere, flaw)
        if worse is None or worse == answer:
            continue
        system = rng.choice(SYSTEMS) if rng.random() < 0.15 else None
        prompt = [{"role": "system", "content": system}] if system else []
        prompt += _before(rng, by_kind, kinds) if rng.random() < 0.25 else []
        prompt.append({"role": "user", "content": question})
        if (key := f"{question}\n{answer}\n{worse}") not in seen:
            seen.add(key)
            rows.append({"prompt": prompt, "chosen": answer, "rejected": worse, "flaw": flaw})
    return rows


def _before(rng: Random, by_kind: dict[str, list[tuple[str, str]]], kinds: list[str]) -> list[dict[str, str]]:
    """An earlier question of the conversation, answered well."""
    question, answer = rng.choice(by_kind[rng.choice(kinds)])
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _worse(rng: Random, kind: str, answer: str, other: str, elsewhere: str, flaw: str) -> str | None:
    """A worse answer; None where the flaw cannot be made from these."""
    if flaw == "wrong":
        return _wrong(rng, kind, answer, other)
    if flaw == "beside":
        return elsewhere
    if flaw == "short":
        words = answer.split()
        if len(words) < 6:
            return rng.choice(UNSURE)
        return " ".join(words[: len(words) // 2]).rstrip(",.") + "."
    if flaw == "padded":
        return f"{answer} {rng.choice((answer, elsewhere, other))}"
    return rng.choice(REFUSALS)


def _wrong(rng: Random, kind: str, answer: str, other: str) -> str | None:
    """The same sentence with what belongs to another question; a count with a number that is off."""
    if kind == "counting":
        numbers = answer.rstrip(".").split(", ")
        place = rng.randrange(1, len(numbers))
        numbers[place] = str(int(numbers[place]) + rng.choice((-1, 1)))
        return ", ".join(numbers) + "."
    if kind in ("how_to", "request"):
        return other  # advice for another task
    forms = (" comes after ", " is the capital of ", " is ", " says ")
    middle = next(form for form in forms if form in answer)
    first, _, last = answer.partition(middle)
    stranger, found, strange = other.partition(middle)
    if not found or last == strange:
        return None
    return f"{stranger}{middle}{last}" if middle == " comes after " else f"{first}{middle}{strange}"


def safety_pairs(rng: Random, count: int) -> list[dict[str, Any]]:
    """``count`` pairs about different requests: prompt, chosen, rejected, should_refuse.

    Two thirds of the requests are harmful.
    """
    harmful, harmless = [], []
    for family in FAMILIES:
        for thing in family.harmful_objects[:-HELD_OUT]:
            harmful += [
                (question, _complies(rng, family, thing)) for question in _asked(family.harmful, thing)
            ]
        for thing in family.harmless_objects[:-HELD_OUT]:
            harmless += [(question, family.help.format(thing)) for question in _asked(family.harmless, thing)]
    rows = []
    for should_refuse, requests, share in (
        (True, harmful, count - count // 3),
        (False, harmless, count // 3),
    ):
        for question, answer in rng.sample(requests, share):
            refusal = rng.choice(REFUSALS)
            chosen, rejected = (refusal, answer) if should_refuse else (answer, refusal)
            rows.append(
                {"prompt": question, "chosen": chosen, "rejected": rejected, "should_refuse": should_refuse}
            )
    rng.shuffle(rows)
    return rows


def _asked(template: str, thing: str) -> list[str]:
    return [frame.format(template.format(thing)) for frame in FRAMES]


def _complies(rng: Random, family: Family, thing: str) -> str:
    return rng.choice(COMPLIANCES) if rng.random() < 0.6 else family.help.format(thing)
