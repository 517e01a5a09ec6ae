from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig

from align.config.policy import LoraConfig, PolicyConfig
from align.errors import ModelError, RecipeError
from align.model.files.hf_stream import hf_stream
from align.model.files.save import save_model
from align.model.score.head import HEAD, add_score_lora, is_reward_model, load_score_model, pad_apart
from align.model.score.pairs import joint_lengths, pair_rows, pair_scores

POLICY = Path(__file__).parents[3] / "recipes" / "quickstart" / "policy"
PAD = 0


@pytest.fixture(params=["moe", "dense"])
def policy(request: Any, tiny_moe: Any, tmp_path: Path) -> PolicyConfig:
    """A causal language model on disk, DeepSeek-V2 and Llama."""
    model = tiny_moe
    if request.param == "dense":
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=97, max_position_embeddings=128, **sizes)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    save_model(model, AutoTokenizer.from_pretrained(POLICY), tmp_path / "policy")
    return PolicyConfig(path=str(tmp_path / "policy"), dtype="float32")


def with_head(policy: PolicyConfig) -> Any:
    model = load_score_model(policy, seed=0, pad=PAD)
    torch.manual_seed(1)
    torch.nn.init.normal_(model.score.weight)
    return model.eval()


def random_pairs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    sides: list[list[torch.Tensor]] = [[], []]
    for prefix, first, second in ((7, 5, 3), (1, 9, 14), (12, 1, 6), (3, 2, 2)):
        ids = torch.randint(3, 97, (prefix + first + second,), generator=generator)
        sides[0].append(ids[: prefix + first])
        sides[1].append(torch.cat([ids[:prefix], ids[prefix + first :]]))
    sides[0].append(torch.tensor([5, 6, 7, 8]))  # one side begins with the whole other
    sides[1].append(torch.tensor([5, 6]))
    padded = pad_sequence([*sides[0], *sides[1]], batch_first=True, padding_value=PAD)
    lengths = torch.tensor([[len(a), len(b)] for a, b in zip(*sides, strict=True)])
    chosen, rejected = padded.chunk(2)
    return chosen, rejected, lengths


def test_the_body_is_the_policys_and_a_fresh_head_is_zero(policy: PolicyConfig):
    model = load_score_model(policy, seed=0, pad=PAD)
    assert torch.equal(model.score.weight, torch.zeros_like(model.score.weight))
    base = AutoModelForCausalLM.from_pretrained(policy.path, dtype=torch.float32)
    expected = base.model.state_dict()
    assert set(model.model.state_dict()) == set(expected)
    for name, tensor in model.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_joint_rows_score_as_plain_ones(policy: PolicyConfig):
    """Shared prefixes change nothing: neither scores nor gradients."""
    model = with_head(policy)
    chosen, rejected, lengths = random_pairs()
    plain = torch.cat(
        [
            model(input_ids=row[None, : int(length)]).logits[:, 0]
            for side, rows in enumerate((chosen, rejected))
            for row, length in zip(rows, lengths[:, side], strict=True)
        ]
    )
    joint = pair_scores(model, pair_rows(chosen, rejected, lengths))
    torch.testing.assert_close(joint, plain, rtol=1e-4, atol=1e-5)
    gradients = []
    for scores in (plain, joint):
        model.zero_grad()
        first, second = scores.chunk(2)
        (-torch.nn.functional.logsigmoid(first - second)).mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)


def test_the_layout_of_a_joint_row():
    chosen, rejected = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 5, PAD]])
    rows = pair_rows(chosen, rejected, torch.tensor([[4, 3]]))
    assert rows.input_ids_BT.tolist() == [[1, 2, 3, 4, 5]]
    assert rows.positions_BT.tolist() == [[0, 1, 2, 3, 2]]
    assert rows.ends_B2.tolist() == [[3, 4]]
    assert rows.visible_B1TT[0, 0, 4].tolist() == [True, True, False, False, True]
    assert rows.visible_B1TT[0, 0, 3].tolist() == [True, True, True, True, False]
    assert joint_lengths(chosen, rejected, torch.tensor([[4, 3]])).tolist() == [5]


def test_a_saved_reward_model_loads_unchanged_and_goes_on(policy: PolicyConfig, tmp_path: Path):
    model = with_head(policy)
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    save_model(model, tokenizer, tmp_path / "final")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "final").eval()
    assert loaded.config.num_labels == 1
    assert loaded.config.problem_type == "regression"  # vLLM: no sigmoid
    chosen, rejected, lengths = random_pairs()
    scores = loaded(input_ids=torch.cat([chosen, rejected]), attention_mask=None).logits[:, 0]
    torch.testing.assert_close(scores, pair_scores(model, pair_rows(chosen, rejected, lengths)))
    assert is_reward_model(loaded.config)
    again = load_score_model(PolicyConfig(path=str(tmp_path / "final"), dtype="float32"), seed=5, pad=PAD)
    assert torch.equal(again.score.weight, model.score.weight)


def test_adapters_train_the_body_and_the_head_trains_in_full(policy: PolicyConfig):
    model = add_score_lora(with_head(policy), LoraConfig(rank=2))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any(name.endswith(HEAD) for name in trained)
    assert all(".lora_" in name or name.endswith(HEAD) for name in trained)
    assert not any(".mlp." in name for name in trained) or model.config.model_type == "llama"
    assert not any("score.lora" in name for name in trained)
    plain = {name for name, _ in hf_stream(with_head(policy))}
    assert {name for name, _ in hf_stream(model)} == plain
    assert HEAD in plain
    chosen, rejected, lengths = random_pairs()
    rows = pair_rows(chosen, rejected, lengths)
    torch.testing.assert_close(pair_scores(model, rows), pair_scores(with_head(policy), rows))


def test_an_unknown_target_module_is_an_error(policy: PolicyConfig):
    with pytest.raises(RecipeError, match="no linear layer called 'nowhere'"):
        add_score_lora(with_head(policy), LoraConfig(target_modules=["nowhere"]))


def test_a_classifier_with_labels_is_no_reward_model(policy: PolicyConfig):
    file = Path(policy.path) / "config.json"
    config = json.loads(file.read_text())
    kind = config["architectures"][0].replace("ForCausalLM", "ForSequenceClassification")
    file.write_text(json.dumps({**config, "architectures": [kind], "id2label": {0: "a", 1: "b", 2: "c"}}))
    with pytest.raises(ModelError, match="classifier with 3 labels"):
        load_score_model(policy, seed=0, pad=PAD)


def test_missing_weights_are_an_error(tiny_moe: Any, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    save_model(tiny_moe, AutoTokenizer.from_pretrained(POLICY), tmp_path / "policy")
    file = tmp_path / "policy" / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.norm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights: model.norm.weight"):
        load_score_model(PolicyConfig(path=str(tmp_path / "policy"), dtype="float32"), seed=0, pad=PAD)


def test_padding_is_no_token_that_ends_a_conversation():
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    pad_apart(tokenizer, last=5)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    pad_apart(tokenizer, last=tokenizer.eos_token_id)
    assert tokenizer.pad_token_id == tokenizer.bos_token_id


def test_no_token_to_pad_with_is_an_error():
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    tokenizer.bos_token = tokenizer.eos_token
    with pytest.raises(ModelError, match="no other special token"):
        pad_apart(tokenizer, last=tokenizer.eos_token_id)
