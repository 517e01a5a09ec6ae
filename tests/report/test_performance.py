import pytest
import torch

from align.model.peak import peak_flops
from align.report.performance import Performance


def test_share_of_the_peak_by_hand() -> None:
    performance = Performance(devices=2, active=1_000_000, peak_flops=6e9)
    found = performance.metrics({"train/fed_tokens": 4000.0}, {"update": 4.0, "rollout": 9.0})
    # 500 tokens a second on each of two devices, 6 FLOP for each of a million weights: 3e9 of 6e9.
    assert found == {"perf/tokens_per_second": 500.0, "perf/mfu": pytest.approx(0.5)}


def test_without_an_update_or_a_known_model_nothing_is_made_up() -> None:
    assert Performance(1, 10, 1e9).metrics({}, {"update": 1.0}) == {}
    assert Performance(1, 10, 1e9).metrics({"train/fed_tokens": 5.0}, {}) == {}
    assert Performance(1, None, 1e9).metrics({"train/fed_tokens": 5.0}, {"update": 1.0}) == {
        "perf/tokens_per_second": 5.0
    }


def test_a_cpu_s_peak_is_measured() -> None:
    assert 1e9 < peak_flops("cpu", torch.float32) < 1e14
