from __future__ import annotations

import pytest

from align.reward.contract import Sample


@pytest.fixture
def samples() -> list[Sample]:
    """Three answers to one prompt: right, wrong, cut off."""
    prompt = ({"role": "user", "content": "2+2?"},)
    columns = {"answer": "4", "level": 1}
    return [
        Sample(
            prompt=prompt,
            completion=text,
            token_ids=list(range(length)),
            finish_reason=reason,
            max_new_tokens=8,
            columns=columns,
            part="sums",
            prompt_id="sums/7",
            sample_index=index,
        )
        for index, (text, length, reason) in enumerate(
            [("4", 2, "stop"), ("5", 2, "stop"), ("I think that", 8, "length")]
        )
    ]
