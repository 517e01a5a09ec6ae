import math
from pathlib import Path

import pytest

from align.config.rollout import SyncConfig
from align.errors import SyncError
from align.sync.verify import CEILING, FLOOR, FLOOR_DECODING, TIMES_FIRST, Agreement

PROBE = [-1.0, -2.0, -3.0]


def moved(by: float, probe: list[float] = PROBE) -> list[float]:
    return [value + by for value in probe]


def test_the_mean_has_a_ceiling_from_the_first_push_on():
    assert Agreement(SyncConfig(), "bfloat16").check(PROBE, [-1.3, -2.0, -3.0]) == pytest.approx((0.1, 0.3))
    with pytest.raises(SyncError, match=r"mean.* is 0\.31, tolerance 0\.3"):
        Agreement(SyncConfig(), "bfloat16").check(PROBE, moved(0.31))
    with pytest.raises(SyncError, match="disagree"):
        Agreement(SyncConfig(), "float32").check(PROBE, moved(0.0011))
    for wrong in (math.nan, -math.inf):
        with pytest.raises(SyncError, match=r"trainer and engine give .* no finite numbers"):
            Agreement(SyncConfig(), "bfloat16").check([wrong], [-1.0])


@pytest.mark.parametrize(
    ("dtype", "first", "expected"),
    [("bfloat16", 0.001, 0.1), ("bfloat16", 0.03, 0.12), ("float32", 0.0, 1e-4), ("float32", 1e-4, 4e-4)],
)
def test_later_medians_are_held_against_the_first(dtype, first, expected):
    agreement = Agreement(SyncConfig(), dtype)
    agreement.check(PROBE, moved(first))
    assert agreement.tolerance == pytest.approx(expected)
    agreement.check(PROBE, moved(0.99 * expected))
    with pytest.raises(SyncError, match="median"):
        agreement.check(PROBE, moved(1.01 * expected))


def test_a_few_tokens_with_other_experts_are_no_fault():
    agreement = Agreement(SyncConfig(), "bfloat16")
    agreement.check([-1.0] * 60, [-1.0] * 60)
    agreement.check([-1.0] * 60, [-4.0] * 5 + [-1.0] * 55)  # mean 0.25
    agreement.check_decoding([-1.0] * 60, [-4.0] * 20 + [-1.0] * 40)  # mean 1


def test_an_engine_that_did_not_follow_is_caught():
    agreement = Agreement(SyncConfig(), "bfloat16")
    agreement.check(PROBE, moved(0.01))
    agreement.check(moved(0.2), moved(0.21))
    with pytest.raises(SyncError, match="median"):
        agreement.check(moved(0.2), moved(0.01))


def test_a_recipe_can_fix_the_tolerance():
    agreement = Agreement(SyncConfig(tolerance=0.5), "float32")
    agreement.check(PROBE, moved(0.001))
    agreement.check(PROBE, moved(0.4))
    agreement.check_decoding(PROBE, moved(0.4))
    with pytest.raises(SyncError, match=r"tolerance 0\.5"):
        agreement.check(PROBE, moved(0.6))


def test_decoding_is_held_against_prefill():
    agreement = Agreement(SyncConfig(), "float32")
    agreement.check(PROBE, PROBE)
    agreement.check_decoding(PROBE, moved(0.9e-4))
    agreement.check_decoding([], [])  # a model that decodes with the same weights
    for wrong in (moved(1.1e-4), [-1.0, math.nan, -3.0]):
        with pytest.raises(SyncError, match="decoding and prefill"):
            agreement.check_decoding(PROBE, wrong)


def test_the_page_names_these_bounds(repo_root: Path) -> None:
    page = " ".join((repo_root / "docs" / "sync.md").read_text(encoding="utf-8").split())
    bf16, fp32 = "bfloat16", "float32"
    assert f"it is {CEILING[bf16]:g} (1e-3 in fp32)" in page
    assert CEILING[fp32] == 1e-3
    assert f"{TIMES_FIRST:g} times that of the first, at least {FLOOR[bf16]:g} (1e-4 in fp32)" in page
    assert FLOOR[fp32] == 1e-4
    assert FLOOR == FLOOR_DECODING  # "the bound is the same"
