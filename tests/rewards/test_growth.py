"""What the tests of hostile answers rest on."""

from __future__ import annotations

import pytest


def test_work_that_grows_with_the_square_is_found(grows_as_its_text) -> None:
    grows_as_its_text(lambda text: sum(range(len(text) * 100)), lambda n: "a" * n)
    with pytest.raises(AssertionError):
        grows_as_its_text(lambda text: sum(range(len(text) ** 2 // 800)), lambda n: "a" * n)
