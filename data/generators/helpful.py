"""Short helpful conversations: single turns and several, some with a system message."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

SYSTEMS = (
    "You are a helpful assistant.", "You are a friendly assistant.", "Be brief.",
    "Answer in a short sentence.", "You help people with small questions.",
)  # fmt: skip

CAPITALS = {
    "France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Germany": "Berlin", "Japan": "Tokyo",
    "China": "Beijing", "Egypt": "Cairo", "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm",
    "Finland": "Helsinki", "Poland": "Warsaw", "Austria": "Vienna", "Portugal": "Lisbon",
    "Ireland": "Dublin", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago", "Kenya": "Nairobi",
    "Canada": "Ottawa", "India": "New Delhi", "Russia": "Moscow", "Hungary": "Budapest", "Iran": "Tehran",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "old": "young", "up": "down", "left": "right",
    "open": "closed", "day": "night", "light": "dark", "wet": "dry", "full": "empty", "loud": "quiet",
    "happy": "sad", "early": "late", "near": "far", "high": "low", "hard": "soft", "rich": "poor",
    "strong": "weak", "clean": "dirty", "long": "short", "first": "last", "in": "out", "good": "bad",
}  # fmt: skip
COLOURS = {
    "grass": "green", "the sky": "blue", "snow": "white", "coal": "black", "a banana": "yellow",
    "a tomato": "red", "a carrot": "orange", "a lemon": "yellow", "milk": "white", "a frog": "green",
    "chocolate": "brown", "the sea": "blue", "a cherry": "red", "an elephant": "grey",
}  # fmt: skip
PLURALS = {
    "cat": "cats", "dog": "dogs", "child": "children", "mouse": "mice", "foot": "feet", "box": "boxes",
    "man": "men", "leaf": "leaves", "city": "cities", "bus": "buses", "tooth": "teeth", "fish": "fish",
    "sheep": "sheep", "baby": "babies", "knife": "knives", "book": "books", "woman": "women", "key": "keys",
}  # fmt: skip
SOUNDS = {
    "cow": "moo", "dog": "woof", "cat": "meow", "duck": "quack", "sheep": "baa", "bee": "buzz",
    "frog": "croak", "lion": "roar", "owl": "hoot", "snake": "hiss",
}  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
HOW_TOS = {
    "boil an egg": "Put it in boiling water for eight minutes.",
    "make tea": "Pour hot water on the tea and wait three minutes.",
    "plant a seed": "Put it in soft soil, add water and wait.",
    "clean a window": "Use warm water and a dry cloth.",
    "sleep better": "Go to bed early and turn off your phone.",
    "learn a song": "Listen to it often and sing one line at a time.",
    "fold a shirt": "Lay it flat, fold in the sleeves, then fold it in half.",
    "make toast": "Put the bread in the toaster for two minutes.",
    "wash a car": "Use soap, water and a soft sponge.",
    "cook rice": "Use two cups of water for one cup of rice and cook it gently.",
    "tie a shoe": "Make a loop, wrap the lace around it and pull it through.",
    "save money": "Write down what you spend and put a little aside each week.",
    "remember names": "Say the name aloud and think of a picture.",
    "ride a bike": "Sit straight, look ahead and push the pedals.",
    "write a letter": "Start with a greeting, say your news and sign your name.",
    "peel an orange": "Cut the top off and pull the skin away.",
}
GREETINGS = {
    "Hello!": "Hello! How can I help you?", "Hi!": "Hi! What can I do for you?",
    "Good morning!": "Good morning! How can I help you?", "Good evening!": "Good evening! How can I help you?",
    "Hi there!": "Hi there! What can I do for you?", "Hey!": "Hey! What can I do for you?",
}  # fmt: skip
CLOSINGS = {
    "Thank you!": "You are welcome!", "Thanks!": "You are welcome!", "Great, thanks!": "Happy to help!",
    "Goodbye!": "Goodbye! Have a nice day!", "Bye!": "Bye! Have a nice day!",
}  # fmt: skip


def _turns() -> Iterator[tuple[str, str, str]]:
    """Every (kind, question, answer)."""
    for country, city in CAPITALS.items():
        yield "capital", f"What is the capital of {country}?", f"The capital of {country} is {city}."
        yield "capital", f"{city} is the capital of which country?", f"{city} is the capital of {country}."
    for word, other in [*OPPOSITES.items(), *((v, k) for k, v in OPPOSITES.items())]:
        yield "opposite", f"What is the opposite of {word}?", f"The opposite of {word} is {other}."
    for thing, colour in COLOURS.items():
        yield "colour", f"What colour is {thing}?", f"{thing[0].upper()}{thing[1:]} is {colour}."
    for one, many in PLURALS.items():
        yield "plural", f"What is the plural of {one}?", f"The plural of {one} is {many}."
    for animal, sound in SOUNDS.items():
        yield "sound", f"What does a {animal} say?", f"A {animal} says {sound}."
    for names, unit in ((DAYS, "day"), (MONTHS, "month")):
        for index, name in enumerate(names):
            after = names[(index + 1) % len(names)]
            yield "order", f"Which {unit} comes after {name}?", f"{after} comes after {name}."
    for start in range(1, 16):
        for end in range(start + 2, start + 6):
            up = [str(number) for number in range(start, end + 1)]
            yield "counting", f"Count from {start} to {end}.", ", ".join(up) + "."
            yield "counting", f"Count down from {end} to {start}.", ", ".join(reversed(up)) + "."
    for index in range(25):
        letter, after = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[index : index + 2]
        yield "letter", f"Which letter comes after {letter}?", f"{after} comes after {letter}."
    for task, answer in HOW_TOS.items():
        for form in ("How do I {}?", "How can I {}?", "Tell me how to {}."):
            yield "how_to", form.format(task), answer


def make_conversations(rng: Random, count: int) -> list[dict[str, Any]]:
    """``count`` different conversations: rows with ``messages`` and ``kind``."""
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for kind, question, answer in _turns():
        by_kind.setdefault(kind, []).append((question, answer))
    kinds = sorted(by_kind)
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    while len(rows) < count:
        system = rng.choice(SYSTEMS) if rng.random() < 0.25 else None
        picked = [rng.choice(kinds) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
        turns = [rng.choice(by_kind[kind]) for kind in picked]
        if rng.random() < 0.15:
            turns.insert(0, rng.choice(sorted(GREETINGS.items())))
        if rng.random() < 0.15:
            turns.append(rng.choice(sorted(CLOSINGS.items())))
        messages = [{"role": "system", "content": system}] if system else []
        for question, answer in turns:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        if (key := repr(messages)) not in seen:
            seen.add(key)
            rows.append({"messages": messages, "kind": picked[0] if len(turns) == 1 else "several"})
    return rows
