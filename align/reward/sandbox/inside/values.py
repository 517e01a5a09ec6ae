"""Values on the wire between judge and code: plain data by content, everything else by reference.

JSON scalars stand for themselves; anything else is ``[tag, payload]``. Subclasses of plain types travel
as the plain type with their content, so that an ``__eq__`` of their own does not arrive. Unpacking
builds plain types only and runs no code of the sender, unlike pickle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

WIDE = 1 << 63  # longer integers go as hexadecimal: decimal text costs quadratic time and has a limit

_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_EXACT: dict[str, tuple[Any, Callable[[Any], list[Any]]]] = {
    "complex": (complex, lambda value: [value.real, value.imag]),
    "range": (range, lambda value: [value.start, value.stop, value.step]),
    "deque": (deque, lambda value: [list(value), value.maxlen]),
    "Decimal": (Decimal, lambda value: [str(value)]),
    "Fraction": (Fraction, lambda value: [value.numerator, value.denominator]),
    "timedelta": (timedelta, lambda value: [value.days, value.seconds, value.microseconds]),
    "date": (date, lambda value: [value.year, value.month, value.day]),
}
_ISO: dict[str, Any] = {"datetime": datetime, "time": time}
_TAG = {kind: tag for tag, kind in _SEQUENCES.items()} | {kind: tag for tag, (kind, _) in _EXACT.items()}


def pack(value: Any, refer: Callable[[Any], list[Any]]) -> Any:
    """The JSON form of a value.

    Args:
        refer: gives ``[tag, payload]`` for what is not plain data.
    """
    kind = type(value)
    if value is None or kind is bool or kind is float or kind is str:
        return value
    if kind is int:
        return value if -WIDE < value < WIDE else ["int", hex(value)]
    if kind in _TAG:
        tag = _TAG[kind]
        if tag in _SEQUENCES:
            return [tag, [pack(item, refer) for item in value]]
        return [tag, [pack(part, refer) for part in _EXACT[tag][1](value)]]
    if kind is dict:
        return ["dict", [[pack(key, refer), pack(item, refer)] for key, item in value.items()]]
    if kind is bytes or kind is bytearray:
        return [kind.__name__, value.hex()]
    if (kind is datetime or kind is time) and value.tzinfo is None:
        return [kind.__name__, value.isoformat()]
    return _pack_base(value, refer)


def _pack_base(value: Any, refer: Callable[[Any], list[Any]]) -> Any:
    """The content of a subclass (Counter, a named tuple, IntEnum), else a reference."""
    if isinstance(value, dict):
        return pack(dict(value), refer)
    for tag, base in _SEQUENCES.items():
        if isinstance(value, base):
            return [tag, [pack(item, refer) for item in base.__iter__(value)]]
    if isinstance(value, int):
        return pack(int.__add__(value, 0), refer)
    if isinstance(value, float):
        return float.__add__(value, 0.0)
    if isinstance(value, str):
        return str.__str__(value)[:]
    return refer(value)


def unpack(form: Any, resolve: Callable[[str, Any], Any]) -> Any:
    """The value of a JSON form.

    Args:
        resolve: gives the object that a reference ``(tag, payload)`` stands for.

    Raises:
        Exception: the form is malformed; the sender cannot be trusted to send a good one.
    """
    if not isinstance(form, list):
        if isinstance(form, dict):
            raise ValueError("an object is no value")
        return form
    tag, payload = form
    if tag in _SEQUENCES:
        return _SEQUENCES[tag](unpack(item, resolve) for item in payload)
    if tag == "dict":
        return {unpack(key, resolve): unpack(item, resolve) for key, item in payload}
    if tag == "int":
        return int(payload, 16)
    if tag in _EXACT:
        return _EXACT[tag][0](*(unpack(part, resolve) for part in payload))
    if tag == "bytes" or tag == "bytearray":
        content = bytes.fromhex(payload)
        return content if tag == "bytes" else bytearray(content)
    if tag in _ISO:
        return _ISO[tag].fromisoformat(payload)
    return resolve(tag, payload)
