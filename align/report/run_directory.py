"""One directory per run; every file of a run has its place here."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from align.config import yaml12
from align.config.places import check_place
from align.errors import RecipeError
from align.report.environment import environment
from align.report.owner import FILES, Owner

#: A resumed run may change these: how long it goes on, where it runs, what is measured and kept.
CHANGEABLE = frozenset(
    {
        "name", "run_dir", "report", "checkpoint", "cluster", "eval",
        "grpo.steps", "sft.epochs", "sft.max_steps", "rm.epochs", "rm.max_steps",
    }
)  # fmt: skip


class RunDirectory:
    """Paths of one run, and its log."""

    def __init__(self, path: Path, resolved: dict[str, Any]) -> None:
        self.path = Path(path)
        self.resolved = resolved
        self.recipe_hash = recipe_hash(resolved)
        self._handler: logging.Handler | None = None
        self._owner: Owner | None = None

    @classmethod
    def create(cls, path: str | Path, resolved: dict[str, Any], *, resume: bool = False) -> RunDirectory:
        """Make a new run directory, or take up an existing one, become its owner, and start its log.

        Args:
            path: usually runs/<name>.
            resolved: the recipe as plain values, ``recipe.model_dump(mode="json")``.
            resume: continue the run that is there.

        Raises:
            RecipeError: the directory is taken and ``resume`` is off, or cannot be made; there is nothing
                to resume; the recipe differs in a key that a resumed run may not change; or another process
                is at work there.
        """
        path = Path(path)
        if not resume:
            _check_free(path)
        check_place(path, key="run_dir")
        if not resume:
            path.mkdir(parents=True, exist_ok=True)
        run = cls(path, resolved)
        run._owner = Owner.take(path) if path.is_dir() else None
        try:
            run._begin(resume)
        except BaseException:
            run.close()
            raise
        logging.getLogger(__name__).info("%s %s", "resumed" if resume else "started", path)
        return run

    def _begin(self, resume: bool) -> None:
        """What must be seen and written by the owner alone."""
        recipe = self.path / "resolved.yaml"
        if resume:
            _check_resumable(recipe, self.resolved)
        else:
            _check_free(self.path)
        recipe.write_text(yaml12.dump(self.resolved), encoding="utf-8")
        facts = json.dumps(environment(), indent=2)
        (self.path / "environment.json").write_text(facts + "\n", encoding="utf-8")
        self._start_log()

    @property
    def metrics(self) -> Path:
        """One JSON object per line, each with ``step``."""
        return self.path / "metrics.jsonl"

    @property
    def rollouts(self) -> Path:
        """One parquet file per reported step."""
        return self.path / "rollouts"

    @property
    def reward_errors(self) -> Path:
        """Every failed reward call, one JSON object per line."""
        return self.path / "reward_errors.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Root of the checkpoint store."""
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """The trained model with its tokenizer, once the run is done."""
        return self.path / "final"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            logging.getLogger(__name__).error("the run failed", exc_info=error)
        self.close()

    def close(self) -> None:
        """Stop logging into this run and let others have it; safe to call twice."""
        if self._owner is not None:
            self._owner.release()
            self._owner = None
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
            self._handler.close()
            self._handler = None

    def _start_log(self) -> None:
        """Everything from align, and warnings of the libraries."""
        self._handler = logging.FileHandler(self.path / "run.log", encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(self._handler)
        logging.getLogger("align").setLevel(logging.INFO)


def _check_free(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(each.name not in FILES for each in path.iterdir())):
        raise RecipeError(
            "this run directory exists already",
            file=path,
            key="name",
            remedy="continue it with --resume, choose another with name=…, or remove it",
        )


def recipe_hash(resolved: Mapping[str, Any]) -> str:
    """Digest of everything in a recipe that a resumed run may not change, whatever the key order.

    Returns:
        64 hexadecimal digits.
    """
    fixed = sorted((key, json.dumps(value)) for key, value in _fixed_leaves(resolved).items())
    return hashlib.sha256(json.dumps(fixed).encode()).hexdigest()


def _check_resumable(recipe: Path, resolved: Mapping[str, Any]) -> None:
    if not recipe.is_file():
        raise RecipeError(
            "there is no run to resume here", file=recipe.parent, key="name", remedy="leave out --resume"
        )
    try:
        before = _fixed_leaves(yaml12.parse(recipe.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise RecipeError(
            "the recipe of the run to resume cannot be read", file=recipe, remedy="restore it from a copy"
        ) from error
    after = _fixed_leaves(json.loads(json.dumps(resolved)))
    for key in [*after, *before]:
        if before.get(key, _ABSENT) != after.get(key, _ABSENT):
            was, now = (leaves.get(key, "absent") for leaves in (before, after))
            raise RecipeError(
                f"the run was started with {was!r}, this recipe says {now!r}",
                file=recipe,
                key=key,
                remedy=f"set {key}={was} to resume, or start another run with name=…",
            )


_ABSENT = object()


def _fixed_leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key → value of all that is not changeable; lists count as values."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in CHANGEABLE:
            continue
        if isinstance(value, Mapping) and value:
            leaves.update(_fixed_leaves(value, f"{key}."))
        else:
            leaves[key] = list(value) if isinstance(value, tuple) else value
    return leaves
