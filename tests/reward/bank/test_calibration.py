from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest

from align.errors import RewardError
from align.reward.bank.calibration import RunningCalibration, read_calibration, trained_length

SAVED = {"mean": 2.0, "std": 4.0, "quantiles": {"0.1": -1.0, "0.5": 1.0, "0.9": 5.0}, "count": 10}


def save(folder: Path, **changes: Any) -> Path:
    (folder / "calibration.json").write_text(json.dumps(SAVED | changes))
    return folder


def test_saved(tmp_path: Path) -> None:
    saved = read_calibration(save(tmp_path))
    assert [saved.standard(value) for value in (-2, 2, 4)] == [-1, 0, 0.5]
    assert [saved.share(value) for value in (-9, -1, 0, 1, 2, 5, 9)] == pytest.approx(
        [0.1, 0.1, 0.3, 0.5, 0.6, 0.9, 0.9]
    )


def test_equal_quantiles_make_a_jump(tmp_path: Path) -> None:
    saved = read_calibration(save(tmp_path, quantiles={"0": 0.0, "0.4": 1.0, "0.8": 1.0, "1": 2.0}))
    assert [saved.share(value) for value in (0.5, 1, 1.5)] == pytest.approx([0.2, 0.8, 0.9])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": 0.0}, "no distribution"),
        ({"std": None}, "TypeError"),
        ({"quantiles": {}}, "no distribution"),
        ({"quantiles": {"0.1": 3.0, "0.9": 1.0}}, "no distribution"),
        ({"quantiles": [1, 2]}, "AttributeError"),
    ],
)
def test_an_unusable_file_is_one_clear_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        read_calibration(save(tmp_path, **changes), key="rewards.terms.a.calibration")
    assert caught.value.file == str(tmp_path / "calibration.json")
    assert caught.value.key == "rewards.terms.a.calibration"


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="the reward model has no") as caught:
        read_calibration(tmp_path)
    assert "align rm" in str(caught.value.remedy)


def test_the_length_of_training(tmp_path: Path) -> None:
    assert trained_length(tmp_path) is None
    assert trained_length("someone/model") is None
    assert trained_length(save(tmp_path)) is None
    assert trained_length(save(tmp_path, max_length=256)) == 256


@pytest.mark.parametrize("length", ["256", 0, 1, -5, True, 2.5, [256]])
def test_a_length_that_is_none_is_one_clear_error(tmp_path: Path, length: Any) -> None:
    with pytest.raises(RewardError, match="no count of tokens") as caught:
        trained_length(save(tmp_path, max_length=length), key="rewards.terms.a.model")
    assert (caught.value.file, caught.value.key) == (
        str(tmp_path / "calibration.json"),
        "rewards.terms.a.model",
    )
    assert "rm.max_length" in str(caught.value.remedy)


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_broken_file_has_no_length(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(RewardError, match="cannot be read"):
        trained_length(tmp_path)


def test_running_equals_the_moments_of_everything_seen() -> None:
    random.seed(0)
    running, seen = RunningCalibration(), []
    for size in (1, 7, 0, 30):
        step = [random.gauss(1e6, 3.0) for _ in range(size)]
        running.update(step)
        seen += step
        assert running.mean == pytest.approx(fmean(seen), rel=1e-12)
        assert running.std == pytest.approx(pstdev(seen), rel=1e-6, abs=1e-9)
    again = RunningCalibration()
    again.load_state_dict(json.loads(json.dumps(running.state_dict())))
    assert again == running


def test_running_of_equal_scores_is_zero() -> None:
    running = RunningCalibration()
    running.update([0.1] * 3)
    assert running.standard(0.1) == 0.0
