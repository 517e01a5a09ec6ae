"""Recipes from YAML and overrides; every fault is one RecipeError with file, key and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.config.load import apply_override, check, dump_recipe, load_recipe, parse_override, read_tree
from align.config.recipe import EvalRecipe, GrpoRecipe, PipelineRecipe, SftRecipe
from align.errors import RecipeError

SFT = "kind: sft\nname: tiny\npolicy:\n  path: model\ndata:\n  path: rows.jsonl\n"
GRPO = SFT.replace("sft", "grpo") + "rewards:\n  terms:\n    right:\n      function: exact_answer\n"


def write(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def fault(folder: Path, text: str, kind: Any = GrpoRecipe, overrides: tuple[str, ...] = ()) -> RecipeError:
    file = write(folder, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, overrides, kind=kind)
    assert caught.value.remedy
    assert caught.value.exit_code == 2
    return caught.value


# What loads


def test_defaults_fill_what_is_not_said(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SFT), kind=SftRecipe)
    assert recipe.policy.path == "model"
    assert recipe.sft.epochs == 2
    assert recipe.optim.lr == 5e-6
    assert list(recipe.data.parts) == ["train"]
    assert recipe.directory == Path("runs/tiny")


def test_one_optimiser_key_does_not_reset_the_others_of_sft(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SFT + "optim: {lr: 1e-4}\n"), kind=SftRecipe)
    assert (recipe.optim.lr, recipe.optim.schedule, recipe.optim.warmup_steps) == (1e-4, "cosine", 100)


def test_numbers_with_exponents_and_words_like_off(tmp_path: Path) -> None:
    text = GRPO + "optim: {lr: 5e-6, eps: 1e-10}\ngrpo:\n  importance:\n    level: off\n"
    recipe = load_recipe(write(tmp_path, text), kind=GrpoRecipe)
    assert recipe.optim.lr == 5e-6
    assert recipe.grpo.importance.level == "off"


def test_a_quoted_number_stays_text_where_text_belongs(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SFT.replace("path: model", "path: '5e-6'")), kind=SftRecipe)
    assert recipe.policy.path == "5e-6"


@pytest.mark.parametrize("key", ["path: ./model", "path: ../models/model"])
def test_dotted_paths_start_at_the_recipe(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path("/"))
    file = write(tmp_path, SFT.replace("path: model", key), "recipes/recipe.yaml")
    found = load_recipe(file, kind=SftRecipe).policy.path
    assert found == str(
        tmp_path / ("recipes/model" if "./model" in key and ".." not in key else "models/model")
    )


def test_plain_paths_stay_as_they_are(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SFT.replace("path: model", "path: org/model")), kind=SftRecipe)
    assert recipe.policy.path == "org/model"


def test_dotted_paths_in_lists_mappings_and_parts(tmp_path: Path) -> None:
    text = GRPO.replace("function: exact_answer", "function: ./mine.py:f") + "".join(
        [
            "eval:\n  parts:\n    held.out:\n      path: ./held.jsonl\n      metric: exact_answer\n",
            "      args: {files: [./a, b]}\n",
        ]
    )
    recipe = load_recipe(write(tmp_path, text), kind=GrpoRecipe)
    assert recipe.rewards.terms["right"].function == f"{tmp_path}/mine.py:f"
    assert recipe.eval.parts["held.out"].path == str(tmp_path / "held.jsonl")
    assert recipe.eval.parts["held.out"].args == {"files": [str(tmp_path / "a"), "b"]}


def test_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    recipe = load_recipe(write(tmp_path, SFT.replace("path: model", "path: ~/model")), kind=SftRecipe)
    assert recipe.policy.path == "/home/someone/model"


def test_what_is_dumped_loads_as_the_same_recipe(tmp_path: Path) -> None:
    text = GRPO + "optim: {lr: 1e-6}\ngrpo: {importance: {level: off}}\n"
    text += "data: {parts: {a: {path: ./x, system: '1e5', where: answer != 'no'}}}\n"
    recipe = load_recipe(write(tmp_path, text.replace("data:\n  path: rows.jsonl\n", "")), kind=GrpoRecipe)
    elsewhere = write(tmp_path / "runs/tiny", dump_recipe(recipe), "resolved.yaml")
    assert load_recipe(elsewhere, kind=GrpoRecipe) == recipe


def test_recipes_are_frozen(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SFT), kind=SftRecipe)
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "other"  # type: ignore[misc]


# Overrides


@pytest.mark.parametrize(
    ("override", "steps", "value"),
    [
        ("grpo.steps=20", ["grpo", "steps"], 20),
        ("optim.lr=1e-5", ["optim", "lr"], 1e-5),
        ("a.b=text with spaces", ["a", "b"], "text with spaces"),
        ("a.b=x=y", ["a", "b"], "x=y"),
        ("a.b=[1, 2]", ["a", "b"], [1, 2]),
        ("a.b={c: off}", ["a", "b"], {"c": "off"}),
        ("a.b=", ["a", "b"], None),
        ("a.b=null", ["a", "b"], None),
        ("a.b=true", ["a", "b"], True),
        ("a.b='5'", ["a", "b"], "5"),
        (" a.b =1", ["a", "b"], 1),
    ],
)
def test_override_forms(override: str, steps: list[str], value: object) -> None:
    assert parse_override(override) == (steps, value)


@pytest.mark.parametrize("override", ["steps", "=3", "a..b=1", ".a=1", "a.=1", "", "a.b=[1", "a={b"])
def test_broken_overrides(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_override(override)
    assert caught.value.remedy


def test_overrides_win_and_make_sections(tmp_path: Path) -> None:
    file = write(tmp_path, SFT + "optim:\n")
    recipe = load_recipe(
        file, ["optim.lr=3e-4", "policy.lora.rank=4", "data.parts.b.path=x", "name=other"], kind=SftRecipe
    )
    assert recipe.optim.lr == 3e-4
    assert recipe.policy.lora is not None
    assert recipe.policy.lora.rank == 4
    assert list(recipe.data.parts) == ["b"]
    assert recipe.name == "other"


def test_a_later_override_wins(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, SFT), ["seed=1", "seed=2"], kind=SftRecipe).seed == 2


def test_dotted_paths_in_overrides_start_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, SFT, "recipes/recipe.yaml")
    recipe = load_recipe(file, ["policy.path=./model", "data.parts={a: {path: ../rows}}"], kind=SftRecipe)
    assert recipe.policy.path == str(tmp_path / "model")
    assert recipe.data.parts["a"].path == str(tmp_path.parent / "rows")


def test_an_override_cannot_reach_into_a_value() -> None:
    with pytest.raises(RecipeError) as caught:
        apply_override({"policy": "model"}, "policy.path=x")
    assert caught.value.key == "policy.path"


# Faults


@pytest.mark.parametrize(
    ("extra", "key", "message", "remedy"),
    [
        ("lr: 1e-5", "lr", "unknown key 'lr'", "did you mean 'optim.lr'?"),
        ("grpo: {step: 3}", "grpo.step", "unknown key 'step'", "did you mean 'steps'?"),
        ("gropo: {}", "gropo", "unknown key 'gropo'", "did you mean 'grpo'?"),
        ("zzz: 1", "zzz", "unknown key 'zzz'", "known keys here: name, seed"),
        ("grpo: {advantage: {scal: std}}", "grpo.advantage.scal", "unknown key", "did you mean 'scale'?"),
        ("grpo: {steps: many}", "grpo.steps", "must be a whole number, got 'many'", "Rollout-and-update"),
        ("grpo: {steps: 1.5}", "grpo.steps", "must be a whole number, got 1.5", "steps:"),
        ("grpo: {steps: 0}", "grpo.steps", "greater than or equal to 1", "steps:"),
        ("grpo: {group_size: 1}", "grpo.group_size", "greater than or equal to 2, got 1", "At least 2"),
        ("grpo: {kl: k4}", "grpo.kl", "'k1', 'k2' or 'k3', got 'k4'", "kl:"),
        ("grpo: {minibatches: 3}", "grpo", "must divide prompts_per_step", "align describe grpo grpo"),
        ("grpo:", "grpo", "must be a section of keys, got nothing", "align describe grpo grpo"),
        ("grpo: 3", "grpo", "must be a section of keys, got 3", "align describe"),
        ("grpo: [1]", "grpo", "must be a section of keys", "align describe"),
        ("optim: {lr: fast}", "optim.lr", "must be a number, got 'fast'", "Peak learning rate"),
        ("optim: {lr: 0}", "optim.lr", "must be greater than 0, got 0", "lr:"),
        ("optim: {lr: .inf}", "optim.lr", "must be a finite number", "lr:"),
        ("optim: {lr: .nan}", "optim.lr", "must be a finite number", "lr:"),
        ("optim: {betas: [0.9]}", "optim.betas", "must have more values", "betas:"),
        ("optim: {betas: [0.9, x]}", "optim.betas.1", "must be a number, got 'x'", "betas:"),
        ("optim: {decay_at: [0.9, 0.6]}", "optim", "ascending", "align describe grpo optim"),
        ("checkpoint: {every: maybe}", "checkpoint.every", "must be a whole number", "every:"),
        ("rollout: {compile: maybe}", "rollout.compile", "must be true or false, got 'maybe'", "compile:"),
        ("seed: -1", "seed", "greater than or equal to 0", "seed:"),
        ("name: a/b", "name", "pattern", "name:"),
    ],
)
def test_faults_name_key_and_remedy(tmp_path: Path, extra: str, key: str, message: str, remedy: str) -> None:
    text = GRPO.replace("name: tiny\n", "") if extra.startswith("name") else GRPO
    error = fault(tmp_path, f"{text}{extra}\n")
    assert error.file == str(tmp_path / "recipe.yaml")
    assert error.key == key
    assert message in error.message
    assert error.remedy is not None
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        (
            GRPO.replace("    right:\n      function: exact_answer\n", "    right: {}\n"),
            "rewards.terms.right",
            "exactly one of function and model",
        ),
        (GRPO.replace("name: tiny\n", ""), "name", "missing key 'name'"),
        (GRPO.replace("  path: model\n", "  dtype: float32\n"), "policy.path", "missing key 'path'"),
        (
            GRPO.replace("    right:\n      function: exact_answer\n", "    {}\n"),
            "rewards.terms",
            "must not be empty",
        ),
        (
            GRPO.replace("function: exact_answer", "function: [1]"),
            "rewards.terms.right.function",
            "must be text",
        ),
        (
            GRPO.replace("function: exact_answer", "functon: x"),
            "rewards.terms.right.functon",
            "unknown key 'functon'",
        ),
        (GRPO + "eval: {parts: {held: {path: x}}}\n", "eval.parts.held.metric", "missing key 'metric'"),
    ],
)
def test_faults_inside_named_parts_and_missing_keys(
    tmp_path: Path, text: str, key: str, message: str
) -> None:
    error = fault(tmp_path, text)
    assert error.key == key
    assert message in error.message


def test_a_part_that_is_no_section(tmp_path: Path) -> None:
    text = GRPO.replace("  path: rows.jsonl", "  parts:\n    a: rows.jsonl")
    error = fault(tmp_path, text)
    assert (error.key, error.message) == ("data.parts.a", "must be a section of keys, got 'rows.jsonl'")


def test_an_entry_of_a_mapping_has_the_help_of_the_mapping(tmp_path: Path) -> None:
    text = GRPO.replace("  path: rows.jsonl", "  parts:\n    a:\n      columns:\n        answer: 3")
    error = fault(tmp_path, text)
    assert (error.key, error.message) == ("data.parts.a.columns.answer", "must be text, got 3")
    assert error.remedy is not None
    assert error.remedy.startswith("columns: New column")


def test_a_union_is_explained_once(tmp_path: Path) -> None:
    error = fault(tmp_path, GRPO.replace("  path: model", "  path: model\n  lora: {target_modules: 3}"))
    assert error.key == "policy.lora.target_modules"
    assert error.message == "must be a list or 'all-linear', got 3"


def test_further_faults_are_counted(tmp_path: Path) -> None:
    error = fault(tmp_path, GRPO + "grpo: {steps: x, kl: y}\noptim: {lr: z}\n")
    assert error.key == "grpo.steps"
    assert error.message.endswith("(and 2 more)")


def test_a_faulty_override_is_reported_like_a_faulty_file(tmp_path: Path) -> None:
    error = fault(tmp_path, GRPO, overrides=("grpo.group_sice=4",))
    assert error.key == "grpo.group_sice"
    assert error.remedy == "did you mean 'group_size'?"


def test_long_values_are_cut(tmp_path: Path) -> None:
    error = fault(tmp_path, GRPO + f"grpo: {{steps: {'x' * 500}}}\n")
    assert len(error.message) < 200


# The file itself


def test_a_missing_file_suggests_one_that_is_there(tmp_path: Path) -> None:
    write(tmp_path, GRPO, "grpo.yaml")
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "gpro.yaml", kind=GrpoRecipe)
    assert caught.value.remedy == "did you mean grpo.yaml?"


def test_a_folder_lists_its_recipes(tmp_path: Path) -> None:
    write(tmp_path, GRPO, "grpo.yaml")
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path, kind=GrpoRecipe)
    assert caught.value.remedy is not None
    assert "grpo.yaml" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"# only a comment\n", "the file is empty"),
        (b"- a\n- b\n", "a mapping of sections"),
        (b"just text", "a mapping of sections"),
        (b"kind: sft\nname: \xff\xfe\n", "not UTF-8 text: byte 16 is 0xff"),
        (b"kind: sft\n  name: x\n", "not valid YAML: mapping values are not allowed here (line 2, column 7)"),
        (b"kind: sft\nkind: grpo\n", "the key 'kind' appears twice (line 2, column 1)"),
        (b"kind: [sft\n", "not valid YAML"),
        (b"\x00", "not valid YAML"),
    ],
)
def test_unusable_files(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read_tree(file)
    assert message in caught.value.message
    assert caught.value.file == str(file)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("head", "kind", "remedy"),
    [
        ("kind: sft", GrpoRecipe, "run it with `align sft`"),
        ("kind: pipeline", EvalRecipe, "run it with `align run`"),
        ("kind: grop", GrpoRecipe, "set kind to one of sft, rm, grpo, eval, pipeline"),
        ("name: x", PipelineRecipe, "set kind to one of sft, rm, grpo, eval, pipeline"),
    ],
)
def test_the_wrong_kind_names_the_right_command(tmp_path: Path, head: str, kind: Any, remedy: str) -> None:
    error = fault(tmp_path, f"{head}\n", kind=kind)
    assert error.key == "kind"
    assert error.remedy is not None
    assert error.remedy.startswith(remedy)


def test_check_accepts_a_tree_without_a_file() -> None:
    tree = {"kind": "pipeline", "name": "p", "stages": {"sft": {"recipe": "sft.yaml"}}}
    assert check(tree, file="p.yaml", kind=PipelineRecipe).directory == Path("runs/p")


# Settings that one command takes and another refuses


@pytest.mark.parametrize(
    ("override", "key", "told"),
    [
        ("policy.lora={dropout: 0.1}", "policy.lora.dropout", "random"),
        ("cluster={processes: 4, expert_parallel: 3}", "cluster.expert_parallel", "3 of 4 ranks"),
        ("cluster={reward_devices: 1}", "cluster.reward_devices", "no reward term names a model"),
    ],
)
def test_what_grpo_cannot_follow_is_refused_there_alone(
    tmp_path: Path, override: str, key: str, told: str
) -> None:
    error = fault(tmp_path, GRPO, GrpoRecipe, (override,))
    assert error.key == key
    assert told in error.message
    assert error.remedy is not None
    assert error.remedy.startswith("set it to")
    load_recipe(write(tmp_path, SFT), (override,), kind=SftRecipe)


@pytest.mark.parametrize("scale", ["clip: [0, 1]", "calibration: running"])
def test_rewards_of_steps_have_no_other_scale(tmp_path: Path, scale: str) -> None:
    file = write(tmp_path, GRPO)
    process = "grpo.advantage={supervision: process}"
    term = f"rewards.terms.right={{function: exact_answer, {scale}}}"
    load_recipe(file, (term,), kind=GrpoRecipe)
    with pytest.raises(RecipeError, match="rewards of a function's steps as they are") as caught:
        load_recipe(file, (process, term), kind=GrpoRecipe)
    assert caught.value.key == f"rewards.terms.right.{scale.partition(':')[0]}"
    of_a_model = f"rewards.terms.right={{model: runs/rm, {scale}}}"  # which gives no steps
    load_recipe(file, (process, of_a_model), kind=GrpoRecipe)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("kind: sft\n5: 6\n", "the key 5 is no text"),
        ("kind: sft\nname: &a [*a]\n", "anchor that holds itself"),
        ("kind: " + "[" * 3000 + "]" * 3000, "nested too deep"),
        (f"kind: sft\nseed: {'9' * 5000}\n", "a value cannot be read"),
    ],
)
def test_yaml_that_no_recipe_is_made_of(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(content)
    with pytest.raises(RecipeError, match=said) as caught:
        read_tree(file)
    assert caught.value.file == str(file)
    assert caught.value.remedy


@pytest.mark.parametrize("limit", [True, 2.0, "3"])
def test_a_limit_is_a_whole_number(tmp_path: Path, limit: object) -> None:
    error = fault(
        tmp_path, SFT, SftRecipe, (f"data.parts={{p: {{path: a.jsonl, limit: {json.dumps(limit)}}}}}",)
    )
    assert error.key == "data.parts.p.limit"
