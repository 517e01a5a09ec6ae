from __future__ import annotations

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from align.algo.router import expert_balance_loss
from align.algo.schedule import lr_factor
from align.checkpoint.store import CheckpointStore
from align.config.recipe import SftRecipe
from align.errors import AlignError, EngineError, ModelError, RecipeError
from align.model.files.load import load_model
from align.train.interrupt import StopRequest
from align.train.sft.data import prepare
from align.train.sft.run import build_trainer, run_sft
from align.train.sft.trainer import PolicyTrainer

DENSE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 640,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
FILE = Path("recipe.yaml")


class Maker:
    """Writes a tiny policy and data set, and makes recipes that use them."""

    def __init__(self, folder: Path, tokenizer: Path, deepseek_v2: Any) -> None:
        self.folder = folder
        self.tokenizer = shutil.copytree(tokenizer, folder / "tokenizer")
        rows = [{"prompt": f"{a} + {b} = ?", "completion": f"{a + b}"} for a in range(6) for b in range(6)]
        (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        moe = deepseek_v2(vocab_size=640)
        for name, config in (("moe", moe), ("dense", DENSE)):
            (folder / name).mkdir()
            (folder / name / "config.json").write_text(json.dumps(config))

    def __call__(self, name: str = "run", *, model: str = "moe", seed: int = 0, **sections: Any) -> SftRecipe:
        settings: dict[str, Any] = {
            "kind": "sft",
            "name": name,
            "seed": seed,
            "run_dir": str(self.folder / "runs" / name),
            "policy": {
                "path": str(self.folder / model),
                "init": "random",
                "tokenizer": str(self.tokenizer),
                "dtype": "float32",
            },
            "cluster": {"device": "cpu", "threads": 1},
            "data": {"path": str(self.folder / "data.jsonl")},
            "sft": {"epochs": 1, "batch_size": 6, "max_length": 64},
            "optim": {"lr": 1e-2, "schedule": "linear", "warmup_steps": 2},
            "report": {"console": False, "tensorboard": False},
        }
        for section, values in sections.items():
            settings[section] = {**settings.get(section, {}), **values}
        return SftRecipe.model_validate(settings)


@pytest.fixture
def make(tmp_path: Path, repo_root: Path, deepseek_v2: Any) -> Maker:
    return Maker(tmp_path, repo_root / "recipes" / "quickstart" / "policy", deepseek_v2)


def metrics(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "train/loss" in line]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "final" / "model.safetensors")


def trainer_of(recipe: SftRecipe) -> PolicyTrainer:
    store = CheckpointStore(recipe.directory / "checkpoints", 1, "")
    return build_trainer(recipe, prepare(recipe, file=FILE), store, None, StopRequest(), resumed=False)


def first_batch(trainer: PolicyTrainer) -> dict[str, torch.Tensor]:
    return next(iter(trainer.get_train_dataloader()))


def test_a_run_learns_and_leaves_a_model_that_transformers_loads(make: Maker):
    recipe = make(sft={"epochs": 4, "balance_alpha": 0.01, "eval_fraction": 0.1})
    run = run_sft(recipe, file=FILE)
    steps = metrics(run)
    assert [line["step"] for line in steps] == list(range(1, 23))  # 32 of 36 rows, 4 epochs, batches of 6
    assert steps[-1]["train/loss"] < 0.6 * steps[0]["train/loss"]
    assert steps[0]["train/loss"] == pytest.approx(math.log(640), rel=0.05)
    expected = [1e-2 * lr_factor(step, 22, recipe.optim) for step in range(22)]
    assert [line["train/lr"] for line in steps] == pytest.approx(expected)
    assert all(line["train/balance_loss"] >= 0.99 for line in steps)
    assert all(1 <= line["router/peak_load"] <= 4 for line in steps)

    model = AutoModelForCausalLM.from_pretrained(run / "final")
    tokenizer = AutoTokenizer.from_pretrained(run / "final")
    assert model.config.moe_router_dtype == "float32"
    assert tokenizer.chat_template
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1 + 1 = ?"}], add_generation_prompt=True, return_tensors="pt"
    )
    assert model(prompt["input_ids"]).logits.isfinite().all()
    evaluations = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["eval/loss"] for line in evaluations if "eval/loss" in line]
    assert len(losses) == 2  # before the first step and after the last
    assert losses[1] < losses[0]
    assert (run / "checkpoints" / "latest").read_text().strip() == "step-000022"


def padded(model: Any, input_ids: torch.Tensor) -> Any:
    """The model on a padded batch, as transformers computes it; in training its rows are flat."""
    flat = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    output = model(input_ids=input_ids)
    model.set_attn_implementation(flat)
    return output


def test_the_loss_is_the_mean_over_assistant_tokens(make: Maker):
    trainer = trainer_of(make())
    batch = first_batch(trainer)
    logits = padded(trainer.model, batch["input_ids"]).logits.log_softmax(-1)
    expected = []
    tokenizer = trainer.processing_class
    for row, ids in enumerate(batch["input_ids"].tolist()):
        start = len(tokenizer.encode(tokenizer.decode(ids).split("Assistant:")[0] + "Assistant:"))
        stop = ids.index(tokenizer.eos_token_id)  # the padding is the same token
        assert stop >= start
        expected += [-logits[row, place - 1, ids[place]].item() for place in range(start, stop + 1)]
    loss = trainer.compute_loss(trainer.model, dict(batch))
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_the_balance_loss_is_added_once_per_layer(make: Maker):
    plain, balanced = trainer_of(make()), trainer_of(make(sft={"balance_alpha": 0.5}))
    batch = first_batch(plain)
    with plain.routers.record():
        padded(plain.model, batch["input_ids"])
    expected = expert_balance_loss(*plain.routers.routing(6), batch["segments"])
    assert len(expected) == 2
    balanced.current_gradient_accumulation_steps = 1
    for trainer in (plain, balanced):
        trainer.model.train()
    difference = balanced.compute_loss(balanced.model, dict(batch)) - plain.compute_loss(
        plain.model, dict(batch)
    )
    assert difference.item() == pytest.approx(0.5 * expected.sum().item(), rel=1e-4)


def test_accumulation_equals_a_larger_batch(make: Maker):
    slow = {"lr": 1e-3}  # Adam makes full steps of what rounding left of a gradient
    whole = run_sft(make("whole", optim=slow, sft={"batch_size": 12}), file=FILE)
    parts = run_sft(make("parts", optim=slow, sft={"batch_size": 3, "gradient_accumulation": 4}), file=FILE)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_packed_training_runs(make: Maker):
    run = run_sft(make(sft={"packing": True, "batch_size": 1, "balance_alpha": 0.01, "epochs": 2}), file=FILE)
    lines = metrics(run)
    assert lines[0]["train/padding_share"] < 0.3
    assert lines[-1]["train/loss"] < lines[0]["train/loss"]


def interrupt_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C while the given step is reported."""
    log = PolicyTrainer.log

    def press(self: PolicyTrainer, logs: dict[str, float], start_time: float | None = None) -> None:
        log(self, logs, start_time)
        if self.state.global_step == step and "loss" in logs:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(PolicyTrainer, "log", press)


@pytest.mark.parametrize(
    "change",
    [
        {"policy": {"dtype": "float32"}},
        {"policy": {"dtype": "bfloat16"}, "sft": {"gradient_accumulation": 2, "balance_alpha": 0.01}},
        {"policy": {"dtype": "bfloat16", "lora": {"rank": 4, "dropout": 0.1}}},
    ],
    ids=["fp32", "bf16-accumulated", "lora-dropout"],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    make: Maker, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
):
    settings = {**change, "sft": {"epochs": 1.5, **change.get("sft", {})}}
    straight = run_sft(make("straight", **settings), file=FILE)
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            run_sft(make("broken", **settings), file=FILE)
    broken = make("broken", **settings)
    assert (broken.directory / "checkpoints" / "latest").read_text().strip() == "step-000003"
    assert not (broken.directory / "final").exists()
    run_sft(broken, file=FILE, resume=True)

    expected, found = metrics(straight), metrics(broken.directory)
    for name in ("step", "train/loss", "train/lr", "train/grad_norm"):
        assert [line[name] for line in found] == [line[name] for line in expected]
    for name, tensor in weights(straight).items():
        assert torch.equal(weights(broken.directory)[name], tensor), name


def test_a_finished_run_can_be_prolonged(make: Maker):
    run = run_sft(make(sft={"max_steps": 2}), file=FILE)
    run_sft(make(sft={"max_steps": 4}), file=FILE, resume=True)
    assert [line["step"] for line in metrics(run)] == [1, 2, 3, 4]


@pytest.mark.parametrize("max_steps", [None, 3])
def test_a_finished_run_resumes_to_nothing(make: Maker, max_steps: int | None):
    settings = {"sft": {"max_steps": max_steps}}
    run = run_sft(make(**settings), file=FILE)
    before = weights(run)
    lines = metrics(run)
    run_sft(make(**settings), file=FILE, resume=True)
    assert metrics(run) == lines
    for name, tensor in weights(run).items():
        assert torch.equal(before[name], tensor)


def test_lora_trains_adapters_and_leaves_a_merged_model(make: Maker):
    recipe = make(policy={"lora": {"rank": 4}}, sft={"epochs": 2})
    run = run_sft(recipe, file=FILE)
    start = load_model(recipe.policy, seed=recipe.seed).state_dict()
    final = AutoModelForCausalLM.from_pretrained(run / "final").state_dict()
    assert set(final) == set(start)
    changed = {name for name in start if not torch.equal(start[name], final[name])}
    assert changed == {name for name in start if ".self_attn." in name and "layernorm" not in name}
    checkpoint = run / "checkpoints" / "step-000012"
    assert (checkpoint / "adapter_model.safetensors").is_file()
    assert not (checkpoint / "model.safetensors").exists()


def test_the_same_seed_gives_the_same_run(make: Maker):
    runs = [run_sft(make(name, seed=seed), file=FILE) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    losses = [[line["train/loss"] for line in metrics(run)] for run in runs]
    assert losses[0] == losses[1] != losses[2]


def test_nothing_is_pickled_that_must_be_trusted(make: Maker):
    run = run_sft(make(sft={"max_steps": 1}), file=FILE)
    names = {path.name for path in (run / "checkpoints" / "step-000001").iterdir()}
    assert "training_args.bin" not in names
    assert "model.safetensors" in names
    optimizer = torch.load(run / "checkpoints" / "step-000001" / "optimizer.pt", weights_only=True)
    assert optimizer["master/lm_head.weight"].dtype == torch.float32


def test_balance_loss_on_a_dense_policy_is_refused(make: Maker):
    with pytest.raises(RecipeError, match="only MoE policies") as caught:
        run_sft(make(model="dense", sft={"balance_alpha": 0.1}), file=FILE)
    assert caught.value.key == "sft.balance_alpha"


def test_a_dense_policy_trains_too(make: Maker):
    lines = metrics(run_sft(make(model="dense", sft={"max_steps": 3}), file=FILE))
    assert len(lines) == 3
    assert "train/balance_loss" not in lines[0]


def test_bad_input_leaves_no_run_directory(make: Maker):
    recipe = make(data={"path": "missing.jsonl"})
    with pytest.raises(AlignError, match="missing"):
        run_sft(recipe, file=FILE)
    assert not recipe.directory.exists()


def test_a_taken_run_directory_is_refused(make: Maker):
    run_sft(make(sft={"max_steps": 1}), file=FILE)
    with pytest.raises(RecipeError, match="exists already"):
        run_sft(make(sft={"max_steps": 1}), file=FILE)


def test_a_run_that_diverges_stops(make: Maker, monkeypatch: pytest.MonkeyPatch):
    loss = PolicyTrainer.compute_loss
    monkeypatch.setattr(PolicyTrainer, "compute_loss", lambda *a, **k: loss(*a, **k) * float("nan"))
    with pytest.raises(EngineError, match="step 1: the loss is nan") as caught:
        run_sft(make(), file=FILE)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(("started", "counted"), [(2, 1), (1, 2), (4, 2)])
def test_a_launcher_with_another_number_of_processes_is_refused(
    make: Maker, monkeypatch: pytest.MonkeyPatch, started: int, counted: int
):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(started))
    with pytest.raises(
        RecipeError, match=f"started {started} processes, the recipe counts with {counted}"
    ) as caught:
        run_sft(make(cluster={"processes": counted}), file=FILE)
    assert caught.value.key == "cluster.processes"


def test_bf16_on_several_cpu_processes_is_refused(make: Maker):
    with pytest.raises(RecipeError, match="float32 only"):
        run_sft(make(policy={"dtype": "bfloat16"}, cluster={"processes": 2}), file=FILE)


def test_a_hub_model_out_of_reach_is_one_error(make: Maker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("align.model.files.hub.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("align.model.files.hub.is_offline_mode", lambda: False)
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        run_sft(make(policy={"path": "nobody/nothing", "init": "pretrained"}), file=FILE)
    assert caught.value.key == "policy.path"


@pytest.mark.slow
def test_two_processes_train_like_one(make: Maker):
    one = run_sft(make("one", sft={"batch_size": 6, "balance_alpha": 0.01}), file=FILE)
    settings = {"sft": {"batch_size": 3, "balance_alpha": 0.01}, "cluster": {"processes": 2}}
    two = run_sft(make("two", **settings), file=FILE)
    expected = [line["train/loss"] for line in metrics(one)]
    assert [line["train/loss"] for line in metrics(two)] == pytest.approx(expected, rel=1e-3)
