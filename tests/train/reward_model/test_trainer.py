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
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from align.algo.router import expert_balance_loss
from align.checkpoint.store import CheckpointStore
from align.config.recipe import RewardModelRecipe
from align.errors import AlignError, EngineError, RecipeError
from align.train.interrupt import StopRequest
from align.train.reward_model.data import prepare
from align.train.reward_model.run import build_trainer, run_reward_model
from align.train.reward_model.trainer import RewardModelTrainer

DENSE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 640,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
FILE = Path("recipe.yaml")
ROWS = 60


class Maker:
    """Writes tiny policies and data sets, and makes recipes that use them."""

    def __init__(self, folder: Path, tokenizer: Path, deepseek_v2: Any) -> None:
        self.folder = folder
        self.tokenizer = shutil.copytree(tokenizer, folder / "tokenizer")
        pairs = [
            {"prompt": f"{n} + 1 = ?", "chosen": f"It is {n + 1}.", "rejected": "no " * (1 + n % 5)}
            for n in range(ROWS)
        ]
        judged = [
            {"prompt": f"{n}?", "completion": "yes" if n % 2 else "no no", "score": n % 2}
            for n in range(ROWS)
        ]
        for name, rows in (("pairs", pairs), ("judged", judged)):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        moe = deepseek_v2(vocab_size=640, max_position_embeddings=256)
        for name, config in (("moe", moe), ("dense", DENSE)):
            (folder / name).mkdir()
            (folder / name / "config.json").write_text(json.dumps(config))

    def __call__(
        self, name: str = "run", *, model: str = "moe", data: str = "pairs", seed: int = 0, **sections: Any
    ) -> RewardModelRecipe:
        settings: dict[str, Any] = {
            "kind": "rm",
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
            "data": {"path": str(self.folder / f"{data}.jsonl")},
            "rm": {"epochs": 1, "batch_size": 8, "max_length": 64, "eval_fraction": 0.25},
            "optim": {"lr": 5e-3, "schedule": "linear", "warmup_steps": 2},
            "report": {"console": False, "tensorboard": False},
        }
        for section, values in sections.items():
            settings[section] = {**settings.get(section, {}), **values}
        return RewardModelRecipe.model_validate(settings)


@pytest.fixture
def make(tmp_path: Path, repo_root: Path, deepseek_v2: Any) -> Maker:
    return Maker(tmp_path, repo_root / "recipes" / "quickstart" / "policy", deepseek_v2)


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def steps(run: Path) -> list[dict[str, float]]:
    return [line for line in lines(run) if "train/loss" in line]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "final" / "model.safetensors")


def trainer_of(recipe: RewardModelRecipe) -> RewardModelTrainer:
    store = CheckpointStore(recipe.directory / "checkpoints", 1, "")
    trainer = build_trainer(recipe, prepare(recipe, file=FILE), store, None, StopRequest(), resumed=False)
    torch.manual_seed(3)
    torch.nn.init.normal_(trainer.model.score.weight)
    trainer.current_gradient_accumulation_steps = 1
    trainer.create_optimizer()
    return trainer


def one_step(trainer: RewardModelTrainer) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the first step."""
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.training_step(trainer.model, dict(batch))
    return loss.item(), {name: p.grad.clone() for name, p in trainer.model.named_parameters()}


def test_a_run_learns_and_leaves_a_model_that_transformers_loads(make: Maker):
    recipe = make(rm={"epochs": 4, "balance_alpha": 0.01})
    run = run_reward_model(recipe, file=FILE)
    found = steps(run)
    assert found[0]["train/loss"] > math.log(2) - 0.01  # a zero head decides nothing
    assert found[0]["train/accuracy"] == 0.5
    assert found[-1]["train/loss"] < 0.3
    assert found[0]["data/held_out"] + found[0]["data/train"] == ROWS
    assert "data/train" not in found[1]
    assert all(line["train/balance_loss"] >= 0.99 for line in found)

    measured = json.loads((run / "held_out.json").read_text())
    assert measured["accuracy"]["value"] > 0.9
    assert measured["accuracy"]["low"] < measured["accuracy"]["value"] <= measured["accuracy"]["high"]
    assert measured["step"] == len(found)
    calibration = json.loads((run / "final" / "calibration.json").read_text())
    assert set(calibration) == {"mean", "std", "quantiles", "count", "max_length"}
    assert list(calibration["quantiles"]) == ["0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99"]
    assert calibration["count"] == 2 * measured["rows"]
    assert "Reliability on held-out rows" in (run / "report.html").read_text(encoding="utf-8")

    model = AutoModelForSequenceClassification.from_pretrained(run / "final").eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "final")
    assert type(model).__name__ == "DeepseekV2ForSequenceClassification"
    question = {"role": "user", "content": "7 + 1 = ?"}
    texts = ("It is 8.", "no no no ")
    chats = [[question, {"role": "assistant", "content": text}] for text in texts]
    batch = tokenizer.apply_chat_template(chats, return_dict=True, return_tensors="pt", padding=True)
    together = model(**batch).logits[:, 0]
    assert together[0] > together[1] + 1
    for chat, expected in zip(chats, together, strict=True):  # padding does not move the score
        ids = tokenizer.apply_chat_template(chat, return_dict=True, return_tensors="pt")["input_ids"]
        torch.testing.assert_close(model(ids).logits[0, 0], expected, rtol=1e-4, atol=1e-4)


def test_the_loss_is_bradley_terry_with_margin_and_centring(make: Maker):
    rows = [json.loads(line) for line in (make.folder / "pairs.jsonl").read_text().splitlines()]
    rows = [{**row, "margin": number / ROWS} for number, row in enumerate(rows)]
    (make.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainer = trainer_of(make(rm={"center": 0.1, "micro_batch_tokens": 64}))
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.training_step(trainer.model, dict(batch))
    model = trainer.model
    scores = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    chosen, rejected = scores.chunk(2)
    losses = torch.log1p(torch.exp(-(chosen - rejected - batch["margin"]))) + 0.1 * (chosen + rejected) ** 2
    assert batch["margin"].max() > 0.5
    assert loss.item() == pytest.approx(losses.mean().item(), rel=1e-4)


@pytest.mark.parametrize(("data", "loss"), [("pairs", "bradley_terry"), ("judged", "regression")])
def test_passes_change_memory_and_nothing_else(make: Maker, data: str, loss: str):
    whole_loss, whole = one_step(trainer_of(make("a", data=data, rm={"loss": loss})))
    parts_loss, parts = one_step(
        trainer_of(make("b", data=data, rm={"loss": loss, "micro_batch_tokens": 40}))
    )
    assert parts_loss == pytest.approx(whole_loss, rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_the_balance_loss_is_added_once_per_layer(make: Maker):
    plain, balanced = trainer_of(make("a")), trainer_of(make("b", rm={"balance_alpha": 0.5}))
    batch = next(iter(plain.get_train_dataloader()))
    losses = [trainer.training_step(trainer.model, dict(batch)).item() for trainer in (plain, balanced)]
    (_, rows), *others = plain._passes(dict(batch))
    assert not others
    plain._scores(plain.model, rows)
    expected = expert_balance_loss(*plain.routers.routing(len(plain._real)), plain._real.long())
    assert len(expected) == 2
    assert losses[1] - losses[0] == pytest.approx(0.5 * expected.sum().item(), rel=1e-4)


def test_answers_are_judged_one_by_one(make: Maker):
    recipe = make(data="judged", rm={"loss": "binary", "epochs": 4})
    run = run_reward_model(recipe, file=FILE)
    measured = json.loads((run / "held_out.json").read_text())
    assert measured["accuracy"]["value"] > 0.9
    assert "train/accuracy" not in steps(run)[0]
    last = lines(run)[-1]
    assert last["eval/auc"] > 0.95
    assert 0 <= last["eval/ece"] < 0.5
    assert last["eval/loss"] < math.log(2)
    assert sum(len(each) for each in measured["histogram"].values()) == 41 + 2 * 40


def test_scores_are_learnt_by_regression(make: Maker):
    rows = [{"prompt": f"{n % 9}?", "completion": "no " * (1 + n % 4), "score": n % 4} for n in range(ROWS)]
    (make.folder / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = run_reward_model(make(data="judged", rm={"loss": "regression", "epochs": 6}), file=FILE)
    last = lines(run)[-1]
    assert last["eval/correlation"] > 0.5
    assert last["eval/accuracy"] > 0.6  # answers to one prompt, in order
    assert last["eval/rmse"] == pytest.approx(last["eval/loss"] ** 0.5)


def interrupt_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C while the given step is reported."""
    log = RewardModelTrainer.log

    def press(self: RewardModelTrainer, logs: dict[str, float], start_time: float | None = None) -> None:
        log(self, logs, start_time)
        if self.state.global_step == step and "loss" in logs:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RewardModelTrainer, "log", press)


@pytest.mark.parametrize(
    "change",
    [
        {"policy": {"dtype": "bfloat16"}, "rm": {"balance_alpha": 0.01, "micro_batch_tokens": 100}},
        {"policy": {"dtype": "bfloat16", "lora": {"rank": 4, "dropout": 0.1}}},
    ],
    ids=["bf16", "lora-dropout"],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    make: Maker, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
):
    straight = run_reward_model(make("straight", **change), file=FILE)
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            run_reward_model(make("broken", **change), file=FILE)
    broken = make("broken", **change)
    assert (broken.directory / "checkpoints" / "latest").read_text().strip() == "step-000003"
    assert not (broken.directory / "final").exists()
    run_reward_model(broken, file=FILE, resume=True)

    for name in ("step", "train/loss", "train/lr", "train/grad_norm", "train/accuracy"):
        assert [line[name] for line in steps(broken.directory)] == [line[name] for line in steps(straight)]
    for name, tensor in weights(straight).items():
        assert torch.equal(weights(broken.directory)[name], tensor), name
    for file in ("held_out.json", "final/calibration.json"):
        assert (broken.directory / file).read_text() == (straight / file).read_text()


def test_a_finished_run_resumes_to_nothing(make: Maker):
    run = run_reward_model(make(rm={"max_steps": 2}), file=FILE)
    before, written = lines(run), (run / "final" / "model.safetensors").stat().st_mtime_ns
    run_reward_model(make(rm={"max_steps": 2}), file=FILE, resume=True)
    assert lines(run) == before
    assert (run / "final" / "model.safetensors").stat().st_mtime_ns == written


def test_a_run_cut_off_before_its_final_model_gets_one(make: Maker):
    run = run_reward_model(make(rm={"max_steps": 2}), file=FILE)
    before = weights(run)
    shutil.rmtree(run / "final")
    run_reward_model(make(rm={"max_steps": 2}), file=FILE, resume=True)
    assert (run / "final" / "calibration.json").is_file()
    for name, tensor in weights(run).items():
        assert torch.equal(before[name], tensor), name


def test_lora_leaves_a_merged_model_and_a_complete_checkpoint(make: Maker):
    recipe = make(model="dense", policy={"lora": {"rank": 4}})
    run = run_reward_model(recipe, file=FILE)
    model = AutoModelForSequenceClassification.from_pretrained(run / "final")
    assert type(model).__name__ == "LlamaForSequenceClassification"
    assert model.score.weight.abs().max() > 0
    names = {path.name for path in next((run / "checkpoints").glob("step-*")).iterdir()}
    assert {"adapter_model.safetensors", "score_head.safetensors"} <= names
    assert "model.safetensors" not in names


def test_a_reward_model_can_be_trained_on(make: Maker):
    """Its head stays, and it is measured before the first step."""
    first = run_reward_model(make("first", rm={"epochs": 4}), file=FILE)
    again = make("again", policy={"path": str(first), "init": "pretrained"}, rm={"max_steps": 1})
    run = run_reward_model(again, file=FILE)
    start, *_, end = (line["eval/accuracy"] for line in lines(run) if "eval/accuracy" in line)
    assert start == json.loads((first / "held_out.json").read_text())["accuracy"]["value"]
    assert end > 0.9


def test_held_out_rows_are_measured_on_the_way(make: Maker):
    run = run_reward_model(make(rm={"eval_every": 2, "max_steps": 5}), file=FILE)
    assert [line["step"] for line in lines(run) if "eval/accuracy" in line] == [2, 4, 5]


def test_noise_is_counted_in_the_metrics(make: Maker):
    with (make.folder / "pairs.jsonl").open("a") as stream:
        stream.write(json.dumps({"prompt": "a", "chosen": "b", "rejected": "b"}) + "\n")
        stream.write(json.dumps({"prompt": "a", "chosen": "b", "rejected": ""}) + "\n")
    run = run_reward_model(make(rm={"max_steps": 1}), file=FILE)
    first = steps(run)[0]
    kinds = ("identical", "differing", "empty")
    assert [first[f"data/left_out_{kind}"] for kind in kinds] == [1, 0, 1]
    assert "left out of 62 rows: 1 identical, 1 empty" in (run / "run.log").read_text()


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"model": "dense", "rm": {"balance_alpha": 0.1}}, "rm.balance_alpha"),
        ({"rm": {"max_length": 300}}, "rm.max_length"),
        ({"rm": {"batch_size": 3}, "cluster": {"processes": 2}}, "rm.batch_size"),
        ({"policy": {"dtype": "bfloat16"}, "cluster": {"processes": 2}}, "policy.dtype"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(make: Maker, sections: dict[str, Any], key: str):
    recipe = make(**sections)
    with pytest.raises(RecipeError) as caught:
        run_reward_model(recipe, file=FILE)
    assert caught.value.key == key
    assert not recipe.directory.exists()


def test_bad_data_leaves_no_run_directory(make: Maker):
    recipe = make(data="judged")
    with pytest.raises(AlignError, match=r"row train/0: no chosen"):
        run_reward_model(recipe, file=FILE)
    assert not recipe.directory.exists()


def test_a_run_that_diverges_stops(make: Maker, monkeypatch: pytest.MonkeyPatch):
    loss = RewardModelTrainer.compute_loss
    monkeypatch.setattr(RewardModelTrainer, "compute_loss", lambda *a, **k: loss(*a, **k) * float("nan"))
    with pytest.raises(EngineError, match="step 1: the loss is nan"):
        run_reward_model(make(), file=FILE)


@pytest.mark.slow
def test_two_processes_train_like_one(make: Maker):
    one = run_reward_model(make("one"), file=FILE)
    two = run_reward_model(make("two", cluster={"processes": 2}), file=FILE)
    expected = [line["train/loss"] for line in steps(one)[:-1]]  # the last batch has an odd number of rows
    assert [line["train/loss"] for line in steps(two)[:-1]] == pytest.approx(expected, rel=1e-3)
    found = [json.loads((run / "held_out.json").read_text()) for run in (one, two)]
    assert found[0]["rows"] == found[1]["rows"]
