"""The texts inside a JSON value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def texts_in(value: Any) -> Iterator[str]:
    """Every text, those of keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts_in(key)
            yield from texts_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_in(item)


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The same value with every text inside changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {mapped(key, change): mapped(item, change) for key, item in value.items()}
    return [mapped(item, change) for item in value] if isinstance(value, list | tuple) else value
