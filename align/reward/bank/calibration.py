"""Raw scores on a common scale: fixed by a reward model's held-out scores, or learned during the run.

    saved       (x − mean) / std            of the model's calibration.json
    quantiles   share of the model's held-out scores below x, linear between the saved quantiles
    running     (x − mean) / std            over all scores of the run, the step in hand included

calibration.json holds ``mean``, ``std`` (population), ``count`` and ``quantiles``, a mapping from
level ("0.05") to score; and ``max_length``, the tokens that the model was trained to read. A reward
model's scores have an arbitrary zero and unit, so terms of different models can be weighed against each
other only after this.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from align.errors import RewardError

FILE = "calibration.json"


@dataclass(frozen=True, slots=True)
class SavedCalibration:
    """The distribution of a reward model's scores on its held-out set."""

    mean: float
    std: float
    quantiles: tuple[tuple[float, float], ...] = ()
    """(score, level) by rising level."""

    def standard(self, value: float) -> float:
        """(value − mean) / std."""
        return (value - self.mean) / self.std

    def share(self, value: float) -> float:
        """The share of held-out scores below ``value``, 0 … 1; flat outside the outermost quantiles."""
        above = bisect_right(self.quantiles, value, key=lambda pair: pair[0])
        if above == 0:
            return self.quantiles[0][1]
        low, start = self.quantiles[above - 1]
        if above == len(self.quantiles):
            return start
        high, end = self.quantiles[above]
        return start + (end - start) * (value - low) / (high - low)


def read_calibration(model: str | Path, *, key: str | None = None) -> SavedCalibration:
    """The calibration beside a reward model's weights.

    Args:
        model: the model's directory.
        key: the recipe key, for messages.

    Raises:
        RewardError: there is none, or it cannot be used.
    """
    file = Path(model) / FILE
    if not file.is_file():
        raise RewardError(
            f"the reward model has no {FILE}",
            file=file,
            key=key,
            remedy="train it with `align rm`, which writes one, or set calibration to running or none",
        )
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        mean, std = float(saved["mean"]), float(saved["std"])
        levels = sorted((float(level), float(score)) for level, score in saved["quantiles"].items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RewardError(
            f"cannot be read: {type(error).__name__}: {error}",
            file=file,
            key=key,
            remedy="it needs the numbers mean and std, and quantiles as {level: score}",
        ) from error
    usable = math.isfinite(mean) and math.isfinite(std) and std > 0 and bool(levels)
    if not usable or any(here[1] > after[1] for here, after in pairwise(levels)):
        raise RewardError(
            f"mean {mean:g}, std {std:g} and {len(levels)} quantiles are no distribution of scores",
            file=file,
            key=key,
            remedy="the spread must be above 0 and the quantiles must rise: train the model again",
        )
    return SavedCalibration(mean, std, tuple((score, level) for level, score in levels))


def trained_length(model: str | Path, *, key: str | None = None) -> int | None:
    """The tokens of a conversation that a reward model was trained to read: ``rm.max_length`` of its run.

    Args:
        model: the model's directory.
        key: the recipe key, for messages.

    Returns:
        None where its files do not say, as those of models from elsewhere.

    Raises:
        RewardError: calibration.json names no such length.
    """
    file = Path(model) / FILE
    if not file.is_file():
        return None
    remedy = "set max_length to rm.max_length of the training run, or remove it"
    try:
        length = json.loads(file.read_text(encoding="utf-8")).get("max_length")
    except (ValueError, AttributeError) as error:
        what = f"cannot be read: {type(error).__name__}: {error}"
        raise RewardError(what, file=file, key=key, remedy="train the model again") from error
    if length is None:
        return None
    if type(length) is not int or length < 2:
        raise RewardError(f"max_length {length!r} is no count of tokens", file=file, key=key, remedy=remedy)
    return length


@dataclass(slots=True)
class RunningCalibration:
    """Mean and standard deviation of everything seen so far (Chan, Golub and LeVeque's update)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared distances from the mean."""

    def update(self, values: Sequence[float]) -> None:
        """Take in the scores of one step."""
        if not values:
            return
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        total, shift = self.count + len(values), mean - self.mean
        self.squares += squares + shift**2 * self.count * len(values) / total
        self.mean += shift * len(values) / total
        self.count = total

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    def standard(self, value: float) -> float:
        """(value − mean) / std; 0 while all scores are equal but for rounding."""
        return (value - self.mean) / self.std if self.std > 1e-9 * abs(self.mean) else 0.0

    def state_dict(self) -> dict[str, float]:
        """For the checkpoint."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.count, self.mean, self.squares = int(state["count"]), state["mean"], state["squares"]
