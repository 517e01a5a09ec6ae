"""OpenAssistant's conversation trees, each to the conversation of its best-ranked replies.

Published in two forms: one message a row (``message_id``, ``parent_id``, ``text``, ``role``, ``rank``), and
one tree a row (``prompt`` with nested ``replies``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from align.dataset.messages.turns import turns_of
from align.types import Message

_COLUMNS = {"message_id", "parent_id", "text", "role"}
_ROLES = {"prompter": "user", "assistant": "assistant"}


def is_flat(row: Mapping[str, Any]) -> bool:
    """Whether a row is one message of a tree."""
    return set(row) >= _COLUMNS and row["role"] in _ROLES


def trees_of(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """The root of each tree with its place among the rows, and nested ``replies``.

    Args:
        rows: one message each, in any order. Deleted ones are left out, and what hangs on them.
    """
    nodes = [dict(row) for row in rows]
    replies: dict[Any, list[dict[str, Any]]] = {}
    for node in nodes:
        node["replies"] = replies.setdefault(node["message_id"], [])
        if node["parent_id"] is not None:
            replies.setdefault(node["parent_id"], []).append(node)
    return [
        (place, node)
        for place, node in enumerate(nodes)
        if node["parent_id"] is None and not node.get("deleted")
    ]


def columns_of(root: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a tree: those of its root, and ``messages``, the best path.

    Raises:
        DataError: as :func:`best_path`.
    """
    own = {key: value for key, value in root.items() if key != "replies"}
    return {**own, "messages": best_path(root)}


def best_path(root: Mapping[str, Any]) -> list[Message]:
    """From the root on, of several replies always the best-ranked one, up to the last answer.

    Replies without a rank come last; of equals the first counts.

    Args:
        root: ``text``, ``role`` and ``replies``, nested.

    Raises:
        DataError: a message has no text, or a role that is not OpenAssistant's.
    """
    path = []
    node: Mapping[str, Any] | None = root
    while node is not None:
        role = node.get("role")
        path.append({"role": _ROLES.get(str(role), role), "content": node.get("text")})
        kept = [reply for reply in node.get("replies") or [] if not reply.get("deleted")]
        node = min(kept, key=_rank, default=None)
    while len(path) > 1 and path[-1]["role"] == "user":
        path.pop()
    return turns_of(path, "the tree", "user")


def _rank(reply: Mapping[str, Any]) -> float:
    rank = reply.get("rank")
    return math.inf if rank is None else float(rank)
