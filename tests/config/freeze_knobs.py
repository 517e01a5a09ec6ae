"""Write knobs.txt anew: every key of every recipe, with the kinds that have it.

Run it only when a key was added, renamed or removed on purpose:
    python tests/config/freeze_knobs.py
"""

from __future__ import annotations

from pathlib import Path

from align.config.knobs import knobs
from align.config.recipe import KINDS

FROZEN = Path(__file__).with_name("knobs.txt")


def current() -> list[str]:
    """Lines ``key: kind, kind``, sorted by key."""
    kinds: dict[str, list[str]] = {}
    for kind, section in KINDS.items():
        for knob in knobs(section):
            kinds.setdefault(knob.key, []).append(kind)
    return sorted(f"{key}: {', '.join(where)}" for key, where in kinds.items())


if __name__ == "__main__":
    FROZEN.write_text("\n".join(current()) + "\n", encoding="utf-8")
    print(f"wrote {len(current())} keys to {FROZEN}")
