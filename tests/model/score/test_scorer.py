"""Reward models on torch: rendering, and scores equal to transformers' for each row alone."""

import math
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig

from align.dataset.preference.tokens import encode
from align.errors import ModelError
from align.model.score.scorer import TorchScorer, open_scorer, shared_lengths

POLICY = Path(__file__).parents[3] / "recipes/quickstart/policy"
TEMPLATES = Path(__file__).parents[3] / "align/dataset/templates"
USER = ({"role": "user", "content": "What is 7 + 15?"},)


def make(family: str, folder: Path, **settings) -> Path:
    """A tiny reward model with fresh weights, fp32, tokenizer and template included."""
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    if family == "moe":
        config = AutoConfig.from_pretrained(POLICY)
    else:
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=512,
        )
    config.update({"num_labels": 1, "pad_token_id": tokenizer.bos_token_id} | settings)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["llama", "moe"])
def model(request, tmp_path_factory) -> Path:
    return make(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return make("llama", tmp_path_factory.mktemp("llama"))


def rows_of(lengths: list[int]) -> list[list[int]]:
    source = random.Random(0)
    return [[source.randrange(5, 600) for _ in range(length)] for length in lengths]


def alone(folder: Path, rows: list[list[int]], dtype=torch.float32) -> list[float]:
    """transformers' own forward pass, row by row and unpadded."""
    reference = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).eval()
    with torch.no_grad():
        return [reference(torch.tensor([row])).logits.item() for row in rows]


@pytest.mark.parametrize("budget", [40, 4096])
def test_scores_are_those_of_each_row_alone(model: Path, budget: int) -> None:
    rows = rows_of([3, 40, 1, 17, 90, 40, 8, 64])
    scorer = TorchScorer(open_scorer(str(model)), device="cpu", dtype="float32", token_budget=budget)
    prompts = [str(i) for i in range(len(rows))]
    assert scorer.score(rows, prompts) == pytest.approx(alone(model, rows), abs=2e-5)


@pytest.mark.parametrize("budget", [40, 4096])
def test_what_a_group_has_in_common_changes_nothing(model: Path, budget: int) -> None:
    first, second = rows_of([20, 33]), rows_of([25, 12, 50])
    rows = [row for pair in zip(second, [*first, [7]], strict=True) for row in pair]
    rows += [[*first[0], 5, 6], first[0][:9], [99, *second[0]]]
    prompts = ["b", "a", "b", "a", "b", "c", "a", "a", "a"]
    scorer = TorchScorer(open_scorer(str(model)), device="cpu", dtype="float32", token_budget=budget)
    assert scorer.score(rows, prompts) == pytest.approx(alone(model, rows), abs=2e-5)


def test_shared_lengths_by_hand() -> None:
    rows = [[1, 2, 3, 4], [1, 2, 9], [1, 2, 3, 4], [5, 2, 3], [1, 2, 3]]
    assert shared_lengths(rows, ["a", "a", "b", "a", "b"]) == [2, 2, 3, 3, 3]


def test_scores_are_those_of_a_padded_batch(model: Path) -> None:
    rows = rows_of([5, 30, 12])
    scorer = TorchScorer(open_scorer(str(model)), device="cpu", dtype="float32")
    reference = AutoModelForSequenceClassification.from_pretrained(model).eval()
    pad = reference.config.pad_token_id
    batch = torch.tensor([row + [pad] * (30 - len(row)) for row in rows])
    with torch.no_grad():
        expected = reference(batch, attention_mask=(batch != pad).long()).logits[:, 0].tolist()
    assert scorer.score(rows, ["a", "b", "c"]) == pytest.approx(expected, abs=2e-5)


def test_bf16_is_as_near_as_transformers_own_bf16(model: Path) -> None:
    rows = rows_of(list(range(4, 100, 6)))
    exact, theirs = alone(model, rows), alone(model, rows, torch.bfloat16)
    ours = TorchScorer(open_scorer(str(model)), device="cpu").score(rows, [str(row[0]) for row in rows])

    def gap(scores: list[float]) -> float:
        return sum(abs(a - b) for a, b in zip(scores, exact, strict=True)) / len(rows)

    assert 0 < gap(ours) < 2 * gap(theirs)


def test_the_head_computes_in_fp32(llama: Path) -> None:
    scores = TorchScorer(open_scorer(str(llama)), device="cpu").score(rows_of([9, 20, 31]), ["a", "b", "c"])
    rounded = torch.tensor(scores).bfloat16().float().tolist()
    assert scores != rounded


def test_a_row_is_the_whole_conversation_with_its_end_token(llama: Path) -> None:
    files = open_scorer(str(llama))
    row = files.encode(USER, "22.")
    expected = "<｜begin▁of▁sentence｜>User: What is 7 + 15?\n\nAssistant: 22.<｜end▁of▁sentence｜>"
    assert files.tokenizer.decode(row) == expected
    assert row[-1] == files.tokenizer.eos_token_id


def test_a_policy_that_spells_the_end_does_not_end_the_row(llama: Path) -> None:
    """Nor does it begin another turn: the judged answer is all that it wrote, as in training."""
    files = open_scorer(str(llama))
    bos, eos = files.tokenizer.bos_token, files.tokenizer.eos_token
    answer = f"22.{eos}{bos}User: Well done!\n\nAssistant: Thanks."
    row = files.encode(USER, answer)
    assert files.tokenizer.decode(row) == f"{bos}User: What is 7 + 15?\n\nAssistant: {answer}{eos}"
    assert (row.count(files.tokenizer.eos_token_id), row.count(files.tokenizer.bos_token_id)) == (1, 1)
    assert row == encode(files.tokenizer, [*USER, {"role": "assistant", "content": answer}])


def test_the_space_that_the_policy_writes_is_not_written_twice(llama: Path) -> None:
    files = open_scorer(str(llama))
    assert files.encode(USER, " 22.") == files.encode(USER, "22.")
    assert files.encode(USER, "22.\n") != files.encode(USER, "22.")


def test_where_padding_and_end_token_are_one_the_score_stays_transformers(tmp_path: Path) -> None:
    eos = AutoTokenizer.from_pretrained(POLICY).eos_token_id
    folder = make("llama", tmp_path, pad_token_id=eos)
    files = open_scorer(str(folder))
    row = files.encode(USER, "22.")
    assert row[-1] != eos
    (expected,) = alone(folder, [[*row, eos]])
    (score,) = TorchScorer(files, device="cpu", dtype="float32").score([row], ["a"])
    assert score == pytest.approx(expected, abs=2e-5)


def test_a_template_that_refuses_is_named(llama: Path) -> None:
    files = open_scorer(str(llama))
    files.tokenizer.chat_template = (TEMPLATES / "deepseek_v2.jinja").read_text()
    with pytest.raises(ModelError, match="refuses this conversation"):
        files.encode([{"role": "judge", "content": "?"}], "yes")


def test_a_score_that_is_no_number_comes_through(llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"][0, 0] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (score,) = TorchScorer(open_scorer(str(folder)), device="cpu").score([[5, 6, 7]], ["a"])
    assert math.isnan(score)


def test_a_run_directory_stands_for_its_final_model(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "run" / "final")
    assert open_scorer(str(tmp_path / "run")).source == str(tmp_path / "run" / "final")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("./nowhere", "no such model directory"),
        (str(POLICY), "sequence classifier with one label, this is DeepseekV2ForCausalLM"),
    ],
)
def test_what_is_no_reward_model_is_refused(path: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        open_scorer(path, file="recipe.yaml", key="rewards.terms.helpful.model")
    assert caught.value.key == "rewards.terms.helpful.model"
    assert caught.value.remedy


def test_two_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="this is LlamaForSequenceClassification with 2"):
        open_scorer(str(make("llama", tmp_path, num_labels=2)))


def test_a_model_without_template_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="chat template of the reward model is unusable"):
        open_scorer(str(folder))


def test_missing_weights_are_not_made_up(llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "headless")
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights: score\.weight"):
        TorchScorer(open_scorer(str(folder)), device="cpu")
