import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from align.config.recipe import GrpoRecipe
from align.model.dropout import disable_dropout
from align.model.policy import PolicyModel

POLICY = Path(__file__).parents[2] / "recipes/quickstart/policy"
TOKENS = torch.arange(12)[None]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        # Modules (nn.Dropout), a number on the attention module, numbers read from the configuration.
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "resid_pdrop": 0.3, "embd_pdrop": 0.3}),
        ("llama", {"attention_dropout": 0.3}),
        ("falcon", {"hidden_dropout": 0.3, "attention_dropout": 0.3, "new_decoder_architecture": True}),
    ],
)
def test_training_mode_answers_like_evaluation(kind, settings):
    sizes = {} if kind == "gpt2" else {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=97, **sizes, **settings)
    model = AutoModelForCausalLM.from_config(config).train()
    assert not torch.equal(model(TOKENS).logits, model(TOKENS).logits)
    disable_dropout(model)
    assert model.training
    found = model(TOKENS).logits
    assert torch.equal(found, model(TOKENS).logits)
    torch.testing.assert_close(found, model.eval()(TOKENS).logits)


def test_a_policy_of_grpo_has_none(tmp_path):
    shutil.copytree(POLICY, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text()) | {"attention_dropout": 0.25}
    (tmp_path / "config.json").write_text(json.dumps(config))
    recipe = GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "dropout",
            "policy": {"path": str(tmp_path), "init": "random", "dtype": "float32"},
            "data": {"path": "none"},
            "rewards": {"terms": {"none": {"function": "none"}}},
            "grpo": {"beta": 0.0},
        }
    )
    model = PolicyModel(recipe, device="cpu").model
    assert model.training
    assert model.config.attention_dropout == 0
    assert [layer.self_attn.attention_dropout for layer in model.model.layers] == [0.0] * 3
