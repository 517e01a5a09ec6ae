"""What every section of a recipe has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

REFUSED = "refused"
"""Type of the fault that :func:`refusal` makes."""


class Section(BaseModel):
    """A frozen group of settings. Unknown keys are refused; the string under a field is its help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def refusal(message: str, *, key: str, remedy: str) -> PydanticCustomError:
    """For validators of whole recipes: a fault that says itself where it is and what to do.

    Args:
        message: what is wrong.
        key: the dotted key at fault; empty for that of the field whose validator this is.
        remedy: what to do about it.
    """
    return PydanticCustomError(REFUSED, "{message}", {"message": message, "key": key, "remedy": remedy})
