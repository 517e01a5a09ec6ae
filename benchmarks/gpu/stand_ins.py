"""Stand-ins for pydantic and xxhash on a machine that has only torch and transformers.

Recipes then have their defaults and their nesting, but nothing checks them; checksums in main memory are
of another kind. Both are enough for the parts here, which write their recipes themselves.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

_MISSING = object()


def install() -> list[str]:
    """Put a stand-in where a package is missing; returns the names of those."""
    stood_in = []
    for name, modules in _STAND_INS.items():
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules |= modules()
            stood_in.append(name)
    return stood_in


class _Default:
    def __init__(self, value: Any) -> None:
        self.value = value


class Model:
    """Stands for ``pydantic.BaseModel``."""

    def __init__(self, **values: Any) -> None:
        hints = {
            name: hint
            for name, hint in typing.get_type_hints(type(self), include_extras=False).items()
            if typing.get_origin(hint) is not typing.ClassVar
        }
        unknown = values.keys() - hints.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} has no {min(unknown)}")
        self.model_fields_set = set(values)
        for name, hint in hints.items():
            if name in values:
                setattr(self, name, _shaped(hint, values[name]))
                continue
            default = getattr(type(self), name, _MISSING)
            if isinstance(default, _Default):
                default = default.value
            if default is _MISSING:
                raise TypeError(f"{type(self).__name__} needs {name}")
            setattr(self, name, copy.deepcopy(default))

    @classmethod
    def model_validate(cls, values: Mapping[str, Any]) -> Any:
        return cls(**values)


def _shaped(hint: Any, value: Any) -> Any:
    """``value`` with mappings turned into the models that ``hint`` has in their place."""
    if isinstance(hint, type) and issubclass(hint, Model):
        return hint(**value) if isinstance(value, Mapping) else value
    inner, origin = typing.get_args(hint), typing.get_origin(hint)
    if origin is dict and isinstance(value, Mapping):
        return {key: _shaped(inner[1], each) for key, each in value.items()}
    if origin is list and isinstance(value, list):
        return [_shaped(inner[0], each) for each in value]
    if origin in (typing.Union, types.UnionType, Annotated):
        for each in inner:
            shaped = _shaped(each, value)
            if shaped is not value:
                return shaped
    return value


def _field(default: Any = _MISSING, **_: Any) -> Any:
    return _Default(default)


def _unchecked(*_: Any, **__: Any) -> Callable[[Any], Any]:
    return lambda function: function


def _pydantic() -> dict[str, types.ModuleType]:
    pydantic, core = types.ModuleType("pydantic"), types.ModuleType("pydantic_core")
    vars(pydantic).update(
        BaseModel=Model,
        ConfigDict=dict,
        Field=_field,
        ValidationError=ValueError,
        model_validator=_unchecked,
        field_validator=_unchecked,
    )
    vars(core).update(PydanticCustomError=ValueError, PydanticUndefined=_MISSING)
    return {"pydantic": pydantic, "pydantic_core": core}


class _Checksum:
    """Stands for ``xxhash.xxh3_64``."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=8)

    def update(self, data: Any) -> None:
        self._hash.update(data)

    def intdigest(self) -> int:
        return int.from_bytes(self._hash.digest(), "little")


def _xxhash() -> dict[str, types.ModuleType]:
    xxhash = types.ModuleType("xxhash")
    vars(xxhash).update(xxh3_64=_Checksum)
    return {"xxhash": xxhash}


_STAND_INS = {"pydantic": _pydantic, "xxhash": _xxhash}
