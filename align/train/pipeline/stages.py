"""From a pipeline recipe to its stages, resolved and checked before any of them starts.

A stage is a recipe file and overrides. ``${stage}`` in an override stands for that stage's run
directory, so ``policy.path: ${sft}`` trains on from the model that the stage ``sft`` made.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.config import yaml12
from align.config.load import check, parse_override, read_tree, set_key
from align.config.places import is_there
from align.config.recipe import KINDS, EvalRecipe, GrpoRecipe, PipelineRecipe, RunRecipe
from align.errors import RecipeError
from align.reward.functions.registry import resolve as resolve_reward

_REFERENCE = re.compile(r"\$\{([^}]*)\}")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, resolved and checked."""

    name: str
    file: Path
    """The recipe."""
    overrides: tuple[str, ...]
    """``key=value``, the run directory and seed included."""
    recipe: RunRecipe

    @property
    def kind(self) -> str:
        """The command that runs it: ``sft``, ``rm``, ``grpo`` or ``eval``."""
        return str(self.recipe.kind)  # type: ignore[attr-defined]

    @property
    def directory(self) -> Path:
        """Its run directory."""
        return self.recipe.directory

    @property
    def resolved(self) -> dict[str, Any]:
        """The recipe as plain values."""
        return self.recipe.model_dump(mode="json")

    def command(self, *, resume: bool = False) -> list[str]:
        """What follows ``align`` to run this stage alone."""
        return [self.kind, os.path.relpath(self.file), *self.overrides, *(["--resume"] if resume else [])]


def load_pipeline(file: str | Path, overrides: Sequence[str] = ()) -> tuple[PipelineRecipe, list[Stage]]:
    """Read a pipeline and check every stage of it.

    Args:
        file: the pipeline recipe.
        overrides: ``stage.key.path=value`` for a stage, ``key=value`` for the pipeline itself.

    Raises:
        RecipeError: the pipeline or a stage is wrong.
        RewardError: a stage names a reward function that cannot be used.
    """
    tree = read_tree(file)
    for override in overrides:
        _override(tree, override)
    pipeline = check(tree, file=file, kind=PipelineRecipe)
    stages: list[Stage] = []
    for name in pipeline.stages:
        stages.append(_stage(name, pipeline, Path(file), stages))
    return pipeline, stages


def _override(tree: dict[str, Any], override: str) -> None:
    steps, value = parse_override(override)
    stages = tree.get("stages")
    names = list(stages) if isinstance(stages, dict) else []
    if steps[0] in names and len(steps) > 1:
        stage = tree["stages"][steps[0]]
        if isinstance(stage, dict) and isinstance(stage.setdefault("set", {}), dict):
            stage["set"][".".join(steps[1:])] = value
        return
    if steps[0] not in PipelineRecipe.model_fields:
        near = difflib.get_close_matches(steps[0], [*names, *PipelineRecipe.model_fields], n=1)
        raise RecipeError(
            f"the pipeline has no stage {steps[0]!r}",
            key=".".join(steps),
            remedy=f"did you mean {near[0]!r}?" if near else f"its stages: {', '.join(names)}",
        )
    set_key(tree, steps, value, origin=override)


def _stage(name: str, pipeline: PipelineRecipe, file: Path, earlier: Sequence[Stage]) -> Stage:
    key = f"stages.{name}"
    if name in PipelineRecipe.model_fields or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        reserved = ", ".join(PipelineRecipe.model_fields)
        raise RecipeError(
            f"{name!r} cannot name a stage",
            file=file,
            key=key,
            remedy=f"use letters, digits, - and _, and none of {reserved}",
        )
    recipe_file = _recipe_file(pipeline.stages[name].recipe, file, f"{key}.recipe")
    tree = read_tree(recipe_file)
    kind = KINDS.get(str(tree.get("kind")))
    if kind is None or not issubclass(kind, RunRecipe):
        runnable = ", ".join(kind for kind, section in KINDS.items() if issubclass(section, RunRecipe))
        raise RecipeError(
            f"a stage cannot be of kind {tree.get('kind')!r}",
            file=recipe_file,
            key="kind",
            remedy=f"name a recipe of one of these kinds: {runnable}",
        )
    directories = {stage.name: str(stage.directory) for stage in earlier}
    settings: dict[str, Any] = {} if "seed" in tree else {"seed": pipeline.seed}
    for setting, value in pipeline.stages[name].set.items():
        settings[setting] = _refer(value, directories, file, f"{key}.set.{setting}")
    if "run_dir" in settings:
        raise RecipeError(
            "a stage's run directory is its name inside the pipeline's",
            file=file,
            key=f"{key}.set.run_dir",
            remedy="set run_dir of the pipeline",
        )
    settings["run_dir"] = str(pipeline.directory / name)
    for setting, value in settings.items():
        set_key(tree, setting.split("."), value, origin=setting)
    try:
        recipe = check(tree, file=recipe_file, kind=kind)
    except RecipeError as error:
        raise _blame(error, pipeline.stages[name].set, file, key) from None
    stage = Stage(
        name=name,
        file=recipe_file,
        overrides=tuple(f"{setting}={yaml12.inline(value)}" for setting, value in settings.items()),
        recipe=recipe,
    )
    _check_files(stage, [Path(directory) for directory in directories.values()])
    return stage


def _recipe_file(named: str, file: Path, key: str) -> Path:
    """Beside the pipeline file, else relative to the working directory."""
    for candidate in (file.parent / named, Path(named)):
        if is_there(candidate):
            return candidate
    near = difflib.get_close_matches(
        Path(named).name, [item.name for item in file.parent.glob("*.yaml")], n=1
    )
    raise RecipeError(
        f"no such recipe: {named}",
        file=file,
        key=key,
        remedy=f"did you mean {near[0]}?" if near else "name a file beside the pipeline",
    )


def _refer(value: Any, directories: Mapping[str, str], file: Path, key: str) -> Any:
    """``value`` with every ``${stage}`` replaced."""
    if isinstance(value, dict):
        return {name: _refer(item, directories, file, key) for name, item in value.items()}
    if isinstance(value, list):
        return [_refer(item, directories, file, key) for item in value]
    if not isinstance(value, str):
        return value
    for name in _REFERENCE.findall(value):
        if name not in directories:
            raise RecipeError(
                f"{value!r} refers to {name!r}, which is no earlier stage",
                file=file,
                key=key,
                remedy=f"refer to one of: {', '.join(directories)}"
                if directories
                else "this stage is the first",
            )
    return _REFERENCE.sub(lambda match: directories[match[1]], value)


def _blame(error: RecipeError, settings: Iterable[str], file: Path, key: str) -> RecipeError:
    """Name the pipeline where the faulty key was set there."""
    faulty = error.key or ""
    for setting in settings:
        if faulty == setting or faulty.startswith(f"{setting}.") or setting.startswith(f"{faulty}."):
            place = f"{key}.set.{setting}"
            return RecipeError(f"{faulty}: {error.message}", file=file, key=place, remedy=error.remedy)
    return error


def _check_files(stage: Stage, made: Sequence[Path]) -> None:
    """Absolute paths must exist, or be made by an earlier stage; reward functions must be usable."""
    for key, value in _paths(stage.resolved):
        path = Path(value)
        if not path.exists() and not any(path.is_relative_to(folder) for folder in made):
            raise RecipeError(
                f"no such file or folder: {value}", file=stage.file, key=key, remedy="correct the path"
            )
    recipe = stage.recipe
    if isinstance(recipe, GrpoRecipe):
        for name, term in recipe.rewards.terms.items():
            key = f"rewards.terms.{name}.function"
            if term.function is not None:
                resolve_reward(term.function, term.args, file=stage.file, key=key)
    if isinstance(recipe, GrpoRecipe | EvalRecipe):
        for name, part in recipe.eval.parts.items():
            resolve_reward(part.metric, part.args, file=stage.file, key=f"eval.parts.{name}.metric")


def _paths(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{name}.")
        elif (
            name in {"path", "tokenizer", "chat_template"} and isinstance(value, str) and os.path.isabs(value)
        ):
            yield f"{prefix}{name}", value
