import copy
import json
import logging
from pathlib import Path

import pytest
import yaml

from align.errors import RecipeError
from align.report.run_directory import RunDirectory, recipe_hash

RECIPE = {
    "name": "demo",
    "kind": "grpo",
    "seed": 0,
    "grpo": {"steps": 10, "beta": 0.04},
    "optim": {"lr": 1e-6, "betas": [0.9, 0.95]},
    "data": {"parts": {"train": {"path": "a.jsonl", "columns": {}}}},
    "report": {"console": True},
    "checkpoint": {"every": 50},
    "cluster": {"threads": None},
    "eval": {"every": 0},
}


def changed(**dotted):
    recipe = copy.deepcopy(RECIPE)
    for key, value in dotted.items():
        *path, leaf = key.split("__")
        node = recipe
        for step in path:
            node = node[step]
        node[leaf] = value
    return recipe


@pytest.fixture
def start(tmp_path):
    opened = []

    def create(recipe=RECIPE, **options):
        run = RunDirectory.create(tmp_path / "runs" / "demo", recipe, **options)
        opened.append(run)
        return run

    yield create
    for run in opened:
        run.close()


def test_a_new_run_writes_down_what_it_is(start):
    run = start()
    assert yaml.safe_load((run.path / "resolved.yaml").read_text()) == RECIPE
    facts = json.loads((run.path / "environment.json").read_text())
    assert facts["packages"]["torch"]
    assert facts["cores"] >= 1
    assert facts["memory_gib"] > 0
    assert facts["python"].count(".") == 2


def test_environment_variables_stay_out(start, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "s3cret-value")
    run = start()
    assert not any("s3cret-value" in file.read_text() for file in run.path.iterdir() if file.is_file())


def test_the_log_takes_align_and_warnings_until_closed(start):
    run = start()
    logging.getLogger("align.train").info("step one")
    logging.getLogger("somelibrary").warning("careful")
    logging.getLogger("somelibrary").info("chatter")
    run.close()
    logging.getLogger("align.train").warning("too late")
    log = (run.path / "run.log").read_text()
    assert "step one" in log
    assert "careful" in log
    assert "chatter" not in log
    assert "too late" not in log


def test_an_existing_run_is_never_overwritten(start):
    start()
    with pytest.raises(RecipeError, match="exists already") as caught:
        start()
    assert all(way in caught.value.remedy for way in ("--resume", "name=", "remove"))


def test_an_empty_directory_is_free(start, tmp_path):
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    assert start().path.is_dir()


def test_resuming_takes_up_the_run_and_its_log(start):
    start().close()
    run = start(changed(grpo__steps=20, checkpoint={"every": 5}, cluster={"threads": 1}), resume=True)
    assert yaml.safe_load((run.path / "resolved.yaml").read_text())["grpo"]["steps"] == 20
    log = (run.path / "run.log").read_text()
    assert "started" in log
    assert "resumed" in log


@pytest.mark.parametrize(
    ("recipe", "key"),
    [
        (changed(grpo__beta=0.0), "grpo.beta"),
        (changed(optim__betas=[0.9, 0.99]), "optim.betas"),
        (changed(data__parts__train__columns={"x": "y"}), "data.parts.train.columns.x"),
        (changed(extra=1), "extra"),
        ({key: value for key, value in RECIPE.items() if key != "seed"}, "seed"),
        (changed(optim__lr=2e-6, seed=1), "seed"),  # the first in the order of the recipe
    ],
)
def test_resuming_with_another_recipe_names_the_key(start, recipe, key):
    start().close()
    with pytest.raises(RecipeError) as caught:
        start(recipe, resume=True)
    assert caught.value.key == key
    assert yaml.safe_load(Path(caught.value.file).read_text()) == RECIPE  # untouched


def test_nothing_to_resume(start, tmp_path):
    with pytest.raises(RecipeError, match="no run to resume"):
        start(resume=True)
    assert not (tmp_path / "runs").exists()


def test_the_hash_ignores_order_and_what_may_change():
    backwards = dict(reversed(RECIPE.items()))
    assert recipe_hash(backwards) == recipe_hash(RECIPE)
    assert recipe_hash(changed(grpo__steps=99, report={"console": False}, eval={})) == recipe_hash(RECIPE)
    assert recipe_hash(changed(grpo__beta=0.05)) != recipe_hash(RECIPE)
    assert recipe_hash(changed(seed=1)) != recipe_hash(RECIPE)
    assert len(recipe_hash(RECIPE)) == 64


def test_the_hash_survives_the_trip_through_yaml():
    recipe = changed(optim__lr=5e-06)
    assert recipe_hash(yaml.safe_load(yaml.safe_dump(recipe))) == recipe_hash(recipe)


def test_a_directory_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="file is no directory"):
        RunDirectory.create(tmp_path / "file" / "run", RECIPE)
