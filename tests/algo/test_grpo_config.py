"""Settings that contradict each other are refused, each with one message that says what to do."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from align.config.grpo import GrpoConfig

SEQUENCE = {"importance": {"level": "sequence"}}
GSPO = {"policy_loss": "gspo", "clip_low": 3e-4, "clip_high": 4e-4} | SEQUENCE


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (GSPO | {"level": "sequence"}, "leave `level` out"),
        ({"policy_loss": "cispo", "clip_low": 1, "clip_high": 4, "level": "sequence"}, "leave `level` out"),
        (GSPO | {"reduction": "token_mean"}, "use reduction: sequence_mean"),
        ({"level": "sequence", "reduction": "max_length"}, "use reduction: sequence_mean"),
        (GSPO | {"advantage": {"supervision": "process"}}, "gspo_token or cispo"),
        ({"level": "sequence", "advantage": {"supervision": "process"}} | SEQUENCE, "gspo_token or cispo"),
        (GSPO | {"importance": {"level": "token"}}, "set importance.level to sequence, or to off"),
        ({"level": "sequence"}, "set importance.level to sequence, or to off"),
        ({"policy_loss": "gspo"} | SEQUENCE, "set both clip_low and clip_high"),
        ({"policy_loss": "cispo", "clip_high": 4}, "set both clip_low and clip_high"),
        ({"advantage": {"supervision": "process", "baseline": "leave_one_out"}}, "group_mean"),
        ({"importance": {"level": "off", "reject_above": 5}}, "set `level` to token or sequence"),
        ({"importance": {"cap": 3, "reject_above": 2}}, "lower the cap to it"),
        ({"importance": {"reject_above": 0.9}}, "greater than 1"),
        ({"importance": {"reject_below": 1.5}}, "less than 1"),
        ({"dynamic_sampling": {"max_rounds": 1}}, "greater than or equal to 2"),
    ],
)
def test_refused(settings, told):
    with pytest.raises(ValidationError) as caught:
        GrpoConfig.model_validate(settings)
    assert caught.value.error_count() == 1
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        GSPO,
        {"policy_loss": "gspo_token", "clip_low": 3e-4, "clip_high": 4e-4, "reduction": "token_mean"},
        {"policy_loss": "cispo", "clip_low": 1, "clip_high": 4, "advantage": {"supervision": "process"}},
        {"level": "sequence", "advantage": {"baseline": "leave_one_out", "scale": "none"}, "kl": "k2"}
        | SEQUENCE,
        {"level": "sequence", "importance": {"level": "off"}},
        {"importance": {"level": "sequence", "cap": 2, "reject_above": 2, "reject_below": 0.5}},
    ],
)
def test_accepted_and_read_back_from_a_full_dump(settings):
    config = GrpoConfig.model_validate(settings)
    assert GrpoConfig.model_validate(config.model_dump(mode="json")) == config
