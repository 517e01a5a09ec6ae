from __future__ import annotations

from align.config.grpo import GrpoConfig


def test_tokens_of_a_pass_follow_the_device_unless_they_are_set():
    assert GrpoConfig().pass_tokens("cpu") == 2048
    assert GrpoConfig().pass_tokens("cuda") == 8192
    assert GrpoConfig(micro_batch_tokens=300).pass_tokens("cpu") == 300
