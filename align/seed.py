"""Every random choice derives from (run seed, step, prompt id, sample index)."""

from __future__ import annotations

import hashlib


def derive_seed(run_seed: int, *parts: int | str) -> int:
    """A 63-bit seed that depends on every argument and on nothing else.

    Args:
        run_seed: the recipe's ``seed``.
        parts: for instance step, prompt id, sample index. Kept apart, so ("a", 1) ≠ ("a1",).
    """
    text = "\x1f".join([str(run_seed), *(f"{type(part).__name__}:{part}" for part in parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
