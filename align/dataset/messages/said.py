"""What a remedy may name: the columns that a row's conversation was read from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple


class Said(NamedTuple):
    """The columns of one row that make its conversation."""

    row: Mapping[str, Any]
    columns: tuple[str, ...]
    mapped: Mapping[str, str] = {}
    """Column → expression, where the recipe makes it."""

    @property
    def not_empty(self) -> str:
        """``where:`` of the rows in which every turn says something."""
        parts = [self._not_empty(column) for column in self.columns if self.row.get(column) is not None]
        return (
            f'drop such rows with where: "{" and ".join(parts)}"' if parts else "drop such rows with where:"
        )

    def _not_empty(self, column: str) -> str:
        keys = self._keys(column)
        if keys is None:
            return f"{column} | trim" if isinstance(self.row[column], str) else column
        return f"'' not in {column} | map(attribute='{keys[1]}') | map('trim')"

    @property
    def any_turns(self) -> str:
        """``where:`` of the rows that have turns."""
        columns = " or ".join(self.columns)
        return f'drop such rows with where: "{columns}"' if columns else "drop such rows with where:"

    @property
    def keep(self) -> str:
        """``columns:`` with messages of nothing but a role and a content."""
        column = next((each for each in self.columns if self._keys(each)), "messages")
        keys = self._keys(column) or ("role", "content")
        made = self.mapped.get(column, column)
        made = made if made.isidentifier() else f"({made})"
        return f"columns: {{{column}: \"{made} | keep('{keys[0]}', '{keys[1]}')\"}}"

    def _keys(self, column: str) -> tuple[str, str] | None:
        """What messages of a column call role and content; None for a text."""
        value = self.row.get(column)
        value = [value] if isinstance(value, Mapping) else value
        if isinstance(value, str) or not isinstance(value, Sequence):
            return None
        first = next((turn for turn in value if isinstance(turn, Mapping)), None)
        if first is None or "replies" in first:
            return None
        from_value = first.get("from") is not None and first.get("role") is None
        return ("from", "value") if from_value else ("role", "content")


def said(row: Mapping[str, Any], columns: Sequence[str], mapped: Collection[str] = ()) -> Said:
    """As :class:`Said`; of ``mapped`` the expressions are known where it has them."""
    return Said(row, tuple(columns), mapped if isinstance(mapped, Mapping) else {})
