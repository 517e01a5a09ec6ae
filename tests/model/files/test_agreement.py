"""The table of agreement, against what transformers computes and what vLLM's source reads."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from align.config.policy import PolicyConfig
from align.errors import ModelError
from align.model.files.agreement import FIELDS, check_agreement
from align.model.files.check import check_model

IDS = torch.tensor([[5, 9, 40, 7, 20, 31, 3]])
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
DISAGREEING = {
    "llama": {
        "bias": True,
        "qkv_bias": True,
        "logit_scale": 0.5,
        "is_causal": False,
        "hidden_act": "gelu",
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "mistral": {
        "bias": True,
        "attention_bias": True,
        "mlp_bias": True,
        "qkv_bias": True,
        "logit_scale": 0.5,
        "ada_rms_norm_t_cond": True,
        "llama_4_scaling": {"beta": 0.1, "original_max_position_embeddings": 16},
    },
    "phi3": {"attention_bias": True, "logit_scale": 2.0},
    "qwen2": {"qk_norm": True, "dual_chunk_attention_config": {"chunk_size": 8}, "head_dim": 16},
    "qwen3": {"attention_bias": True, "dual_chunk_attention_config": {"chunk_size": 8}},
    "qwen2_moe": {"qkv_bias": False, "head_dim": 16, "dual_chunk_attention_config": {"chunk_size": 8}},
    "qwen3_moe": {"attention_bias": True, "shared_expert_intermediate_size": 16},
    "mixtral": {"router_jitter_noise": 0.1, "hidden_act": "gelu"},
    "olmoe": {
        "norm_topk_prob": True,
        "clip_qkv": 0.05,
        "rms_norm_eps": 1e-2,
        "attention_bias": True,
        "head_dim": 16,
        "tie_word_embeddings": True,
    },
    "granite": {"layer_types": ["full_attention"] * 2, "layer_rope_theta": [0, 1e4], "attention_sinks": True},
    "granitemoe": {"layer_rope_theta": [0, 1e4], "attention_bias": True, "head_dim": 16},
    "granitemoeshared": {"layer_rope_theta": [0, 1e4], "attention_bias": True, "head_dim": 16},
    "ernie4_5": {"use_bias": True, "mlp_bias": True, "qkv_bias": True},
    "ernie4_5_moe": {"moe_norm_min": 0.9, "use_moe": False},
    "nemotron": {"bias": True, "logit_scale": 0.5},
    "gemma": {
        "hidden_act": "relu",
        "hidden_activation": "gelu",
        "use_bidirectional_attention": True,
        "attention_bias": True,
    },
    "gpt2": {"scale_attn_weights": False},
    "opt": {"layerdrop": 0.9},
    "stablelm": {"qk_layernorm": True, "use_parallel_residual": True, "norm_eps": 0.1, "hidden_act": "gelu"},
    "glm4_moe": {"tie_word_embeddings": True},
    "minimax_m2": {
        "tie_word_embeddings": True,
        "router_jitter_noise": 0.5,
        "scoring_func": "softmax",
        "use_routing_bias": False,
        "attention_bias": True,
    },
    "deepseek_v2": {
        "norm_topk_prob": True,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "n_group": 2,
        "moe_layer_freq": 2,
        "rms_norm_eps": 1e-2,
        "index_topk": 4,
        "attention_bias": True,
        "mlp_bias": True,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "deepseek_v3": {
        "topk_method": "greedy",
        "scoring_func": "softmax",
        "rope_interleave": False,
        "moe_layer_freq": 2,
        "index_topk": 4,
        "attention_bias": True,
        "tie_word_embeddings": True,
    },
}
"""By family: values that one side alone computes with."""
CASES = [(family, name, value) for family, fields in DISAGREEING.items() for name, value in fields.items()]


def field(family, name):
    from align.model.files.agreement import _ALL

    return next(each for each in (*FIELDS[family], *_ALL) if each.name == name)


def outputs(model, training=False):
    torch.manual_seed(7)
    with torch.no_grad():
        return model.train(training)(input_ids=IDS).logits


def with_weights_of(model, config):
    """Another configuration on the same weights, and which of them do not fit."""
    other = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights, own = model.state_dict(), other.state_dict()
    fitting = {name: each for name, each in weights.items() if name in own and own[name].shape == each.shape}
    other.load_state_dict(fitting, strict=False)
    return other, fitting.keys() ^ own.keys() | fitting.keys() ^ weights.keys()


@pytest.mark.parametrize("name", FIELDS)
def test_what_both_compute_alike_passes(name, family):
    check_agreement(family(name).config)


@pytest.mark.parametrize("name", ["llama", "mistral", "phi3"])
def test_layers_that_all_see_everything_pass(name, family):
    config = family(name).config
    config.layer_types = ["full_attention"] * config.num_hidden_layers
    check_agreement(config)


@pytest.mark.parametrize(("name", "key", "value"), CASES)
def test_what_one_side_computes_with_is_refused(name, key, value, family):
    config = family(name).config
    setattr(config, key, value)
    with pytest.raises(ModelError, match=key) as caught:
        check_agreement(config, file="model/config.json")
    assert caught.value.key == key
    assert caught.value.file == "model/config.json"
    assert f"{field(name, key).follower} computes with {key}: {json.dumps(value)}" in caught.value.message


@pytest.mark.parametrize(("name", "key", "value"), CASES)
def test_transformers_follows_what_the_table_says_it_follows(name, key, value, family):
    """Two values on the same weights: the same numbers, or others, or weights that do not fit."""
    if key == "is_causal":
        pytest.skip("the trainer's attention is its own, and causal")
    model = family(name)
    window = {"sliding_window": 4} if key == "layer_types" and name == "llama" else {}
    config = AutoConfig.for_model(**(model.config.to_dict() | {key: value} | window))
    if (name, key) in {("deepseek_v2", "topk_method"), ("deepseek_v2", "num_key_value_heads")}:
        with pytest.raises((UnboundLocalError, RuntimeError)):  # computes nothing at all
            outputs(AutoModelForCausalLM.from_config(config))
        return
    other, unfit = with_weights_of(model, config)
    noise = key in ("router_jitter_noise", "layerdrop")  # in training alone
    same = not unfit and torch.equal(outputs(other, noise), outputs(model, noise))
    if key == "tie_word_embeddings":
        assert "lm_head.weight" not in dict(other.named_parameters())  # so that no checkpoint has it
    elif (name, key) == ("deepseek_v2", "rms_norm_eps"):
        assert other.model.layers[0].input_layernorm.variance_epsilon == value
        assert other.model.layers[0].self_attn.kv_a_layernorm.variance_epsilon == 1e-6
    else:
        assert same == (field(name, key).follower == "vLLM")


SOURCES = {
    "phi3": ["llama"],
    "mistral": ["mistral", "llama"],
    "ernie4_5": ["ernie45", "llama"],
    "ernie4_5_moe": ["ernie45_moe"],
    "deepseek_v3": ["deepseek_v2"],
    "granitemoe": ["granitemoe", "granite"],
    "granitemoeshared": ["granitemoeshared", "granite"],
}
FIXED = {
    ("deepseek_v2", "topk_method"),  # read for noaux_tc alone
    ("deepseek_v2", "num_key_value_heads"),  # of another attention
    ("qwen3", "attention_bias"),  # of q, k and v, not of the output
    ("qwen3_moe", "attention_bias"),
}


@pytest.mark.parametrize(("name", "key", "value"), CASES)
def test_vllm_reads_what_the_table_says_it_follows(name, key, value):
    found = importlib.util.find_spec("vllm")
    if found is None or (name, key) in FIXED or key == "hidden_act":  # which it refuses when it starts
        pytest.skip("vLLM is not installed, or has one fixed value")
    folder = Path(found.origin).parent / "model_executor" / "models"
    files = [folder / f"{each}.py" for each in SOURCES.get(name, [name])]
    if key != "layer_rope_theta":  # the one thing that granite's MoE takes from granite
        files = [file for file in files if file.name != "granite.py" or name == "granite"]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    reads = re.search(rf'config\.{key}\b|config,\s*"{key}"', text) is not None
    assert reads == (field(name, key).follower == "vLLM")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", {"attention_bias": True, "qkv_bias": True}),
        ("deepseek_v2", {"n_group": 2, "topk_group": 2}),
        ("deepseek_v2", {"n_group": 2, "topk_group": 1, "topk_method": "group_limited_greedy"}),
        ("deepseek_v2", {"rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.7}}),
        ("deepseek_v2", {"rope_parameters": {**YARN, "mscale": 1, "mscale_all_dim": 0}}),
        ("deepseek_v3", {"norm_topk_prob": False}),
        ("llama", {"rope_parameters": {**YARN, "attention_factor": 1.3, "truncate": False}}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
        (
            "phi3",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        ),
        ("qwen2_moe", {"norm_topk_prob": True}),
    ],
)
def test_what_both_follow_passes(name, changes, family):
    check_agreement(family(name, **changes).config)


@pytest.mark.parametrize(
    ("name", "rope", "key"),
    [
        ("llama", {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, "rope_type"),
        (
            "llama",
            {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
            "partial_rotary_factor",
        ),
        ("qwen2", {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}, "mrope_section"),
        ("deepseek_v2", {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}, "rope_type"),
        ("deepseek_v2", {**YARN, "mscale": 0.7}, "mscale"),
        ("deepseek_v2", {**YARN, "mscale_all_dim": 0.7}, "mscale_all_dim"),
        ("deepseek_v3", {**YARN, "attention_factor": 1.0}, "attention_factor"),
        ("deepseek_v3", {**YARN, "truncate": False}, "truncate"),
    ],
)
def test_positions_that_differ_are_refused(name, rope, key, family):
    config = family(name).config
    config.rope_parameters = rope
    with pytest.raises(ModelError, match=key) as caught:
        check_agreement(config)
    assert caught.value.key == f"rope_parameters.{key}"


@pytest.mark.parametrize(
    ("key", "value"), [("n_group", None), ("n_group", 4), ("topk_group", None), ("topk_method", None)]
)
def test_groups_that_only_one_side_makes_are_refused(key, value, family):
    config = family("deepseek_v2").config
    setattr(config, key, value)
    with pytest.raises(ModelError, match=key):
        check_agreement(config)


@pytest.mark.parametrize("name", ["DeepSeek-V2", "DeepSeek-V2-Lite"])
def test_released_configurations_pass(name, repo_root):
    settings = json.loads((repo_root / "align/plan/known" / f"deepseek-ai--{name}.json").read_text())
    check_agreement(AutoConfig.for_model(**settings))


def test_the_file_is_named_where_a_run_is_prepared(family, tmp_path):
    family("deepseek_v2", norm_topk_prob=True).save_pretrained(tmp_path)
    check_model(PolicyConfig(path=str(tmp_path)))
    with pytest.raises(ModelError, match="norm_topk_prob: true") as caught:
        check_model(PolicyConfig(path=str(tmp_path)), sampled=True)
    assert caught.value.file == str(tmp_path / "config.json")
    assert "norm_topk_prob to false" in caught.value.remedy
