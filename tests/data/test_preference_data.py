"""The quickstart's preference pairs: what is better is better, and not for its length."""

from __future__ import annotations

import json
import re
from pathlib import Path

from align.dataset.preference.rows import noise_of, pair_of

PAIRS = Path(__file__).parents[2] / "data" / "quickstart" / "preferences"
REFUSAL = re.compile(r"can't help|won't help")


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (PAIRS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_no_pair_is_noise():
    for name, count in (("helpful", 2400), ("safety", 1500)):
        found = rows(name)
        assert len(found) == count
        assert [noise_of(pair_of(row)) for row in found] == [None] * count


def test_length_decides_little():
    for name in ("helpful", "safety"):
        gaps = [len(row["chosen"]) - len(row["rejected"]) for row in rows(name)]
        longer = sum(gap > 0 for gap in gaps) / sum(gap != 0 for gap in gaps)
        assert 0.44 < longer < 0.56, name


def test_every_flaw_is_one():
    flaws: dict[str, int] = {}
    for row in rows("helpful"):
        chosen, rejected, flaw = row["chosen"], row["rejected"], row["flaw"]
        flaws[flaw] = flaws.get(flaw, 0) + 1
        assert not REFUSAL.search(chosen)
        assert bool(REFUSAL.search(rejected)) == (flaw == "refusal")
        if flaw == "padded":
            assert rejected.startswith(chosen)
        elif flaw == "short":
            assert len(rejected) < max(len(chosen), 24)
        elif flaw == "wrong":
            assert chosen not in rejected
    assert set(flaws) == {"wrong", "beside", "short", "padded", "refusal"}
    assert min(flaws.values()) > 250


def test_a_request_is_refused_exactly_when_it_is_harmful():
    found = rows("safety")
    assert sum(row["should_refuse"] for row in found) == 1000
    assert len({row["prompt"] for row in found}) == 1500
    for row in found:
        assert bool(REFUSAL.search(row["chosen"])) == row["should_refuse"]
        assert bool(REFUSAL.search(row["rejected"])) != row["should_refuse"]


def test_held_out_requests_stay_unseen():
    held = {
        json.loads(line)["prompt"]
        for line in (PAIRS.parent / "safety_heldout.jsonl").read_text(encoding="utf-8").splitlines()
    }
    asked = {row["prompt"] for row in rows("safety")}
    asked |= {row["prompt"][-1]["content"] for row in rows("helpful")}
    assert not held & asked
