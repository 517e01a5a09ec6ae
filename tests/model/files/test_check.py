"""Files that are not a whole model are refused, before weights are read and when they are."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from align.config.policy import PolicyConfig
from align.errors import ModelError
from align.model.files.check import check_model
from align.model.files.load import load_model, load_tokenizer
from align.model.files.save import save_model
from align.model.score.head import load_score_model
from align.plan.source import read_config

EXPERT = "model.layers.1.mlp.experts.{}.up_proj.weight"


@pytest.fixture
def folder(family, tmp_path):
    """A DeepSeek-V3 in several files."""
    family("deepseek_v3").save_pretrained(tmp_path, max_shard_size="20KB")
    return tmp_path


def index(folder):
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


def edit(folder, change):
    """Rewrite the weights as one file."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
        file.unlink()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def policy(folder, **changes):
    return PolicyConfig(path=str(folder), dtype="float32", experts="eager", **changes)


def refused(folder, message, **changes):
    """Both checks refuse the directory; the error of the first."""
    with pytest.raises(ModelError) as loading:
        load_model(policy(folder, **changes), seed=1)
    with pytest.raises(ModelError, match=message) as caught:
        check_model(policy(folder, **changes))
    for error in (loading.value, caught.value):
        assert str(folder) in error.file
        assert error.remedy
        assert "\n" not in error.message
    return caught.value


def test_a_whole_model_passes(folder):
    assert len(set(index(folder).values())) > 2
    check_model(policy(folder))
    load_model(policy(folder), seed=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("lm_head.weight"), r"lacks weights: lm_head\.weight"),
        (lambda t: t.pop("model.norm.weight"), r"lacks weights: model\.norm\.weight"),
        (lambda t: t.pop("model.layers.1.mlp.gate.e_score_correction_bias"), "lacks weights"),
        (lambda t: [t.pop(EXPERT.format(each)) for each in range(4)], "not fit|lacks|stored as"),
        (lambda t: t.pop(EXPERT.format(3)), "not fit|lacks|stored as"),
        (
            lambda t: t.update({EXPERT.format(9): t.pop(EXPERT.format(2))}),
            r"experts\.N\.up_proj.*\[0, 1, 3, 9",
        ),
        (lambda t: t.update({"lm_head.weight": torch.zeros(90, 32)}), r"lm_head.*\[90, 32\].*\[96"),
        (lambda t: t.update({"model.layers.0.mlp.up_proj.weight": torch.zeros(48)}), r"stored as \[48\]"),
        (
            lambda t: t.update({"model.layers.0.q_norm.weight": torch.zeros(8)}),
            "does not compute with",
        ),
        (lambda t: t.update({"score.weight": torch.zeros(1, 32)}), r"does not compute with: score\.weight"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(change, message, folder):
    edit(folder, change)
    refused(folder, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 3}, "lacks weights: model.layers.2"),
        ({"num_hidden_layers": 1, "num_nextn_predict_layers": 0}, "does not compute with"),
        ({"vocab_size": 128}, r"stored as \[96, 32\], .* \[128, 32\]"),
        ({"n_routed_experts": 8}, "stored as"),
        ({"hidden_size": "wide"}, ""),
        ({"model_type": "t5"}, ""),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 2]}}, "quantised"),
    ],
)
def test_a_configuration_of_another_model_is_refused(changes, message, folder):
    configure(folder, **changes)
    refused(folder, message)


def test_layers_for_further_tokens_may_be_there(folder):
    extra = {"model.layers.2.eh_proj.weight": torch.zeros(32, 64)}
    edit(folder, lambda tensors: tensors.update(extra))
    check_model(policy(folder))
    load_model(policy(folder), seed=1)
    configure(folder, num_nextn_predict_layers=0)
    refused(folder, "eh_proj")


def test_a_layer_too_many_is_none_for_further_tokens(folder):
    configure(folder, num_hidden_layers=1, num_nextn_predict_layers=1)
    refused(folder, "does not compute with: model.layers.1")


def test_a_missing_shard_is_named(folder):
    gone = sorted(set(index(folder).values()))[1]
    (folder / gone).unlink()
    assert gone in refused(folder, "1 of the .* missing").message


def test_a_shard_with_other_tensors_than_the_index_says(folder):
    first, second = sorted(set(index(folder).values()))[:2]
    (folder / first).write_bytes((folder / second).read_bytes())
    refused(folder, "in none of the files")


@pytest.mark.parametrize("left", [0, 4, 100, 3000])
def test_a_shard_cut_off_is_named(left, folder):
    shard = folder / sorted(set(index(folder).values()))[0]
    shard.write_bytes(shard.read_bytes()[:left])
    assert refused(folder, "damaged").file == str(shard)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_an_unreadable_index_is_refused(text, folder):
    (folder / "model.safetensors.index.json").write_text(text)
    refused(folder, "index|no weights|empty")


def test_no_weights_at_all(folder):
    edit(folder, lambda tensors: None)
    (folder / "model.safetensors").unlink()
    refused(folder, "holds no weights")
    (folder / "adapter_config.json").write_text("{}")
    assert "align export" in refused(folder, "an adapter").remedy
    torch.save({}, folder / "pytorch_model.bin")
    refused(folder, "pickle")
    check_model(policy(folder, init="random"))  # needs none


def test_weight_files_without_an_index(folder):
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, "no index")


def test_an_empty_file_of_weights(folder):
    edit(folder, lambda tensors: tensors.clear())
    refused(folder, "empty")


def test_quantised_tensors_are_refused(folder):
    edit(folder, lambda t: t.update({"lm_head.weight": t["lm_head.weight"].to(torch.float8_e4m3fn)}))
    with pytest.raises(ModelError, match=r"lm_head\.weight is stored as F8_E4M3"):
        check_model(policy(folder))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": {"type": "BPE"}}'])
def test_an_unreadable_tokenizer_is_refused(text, folder, vocabulary):
    vocabulary(96).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match="cannot read the tokenizer") as caught:
        load_tokenizer(policy(folder))
    assert caught.value.file == str(folder)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_config_ties_is_the_embedding(tied, family, tmp_path):
    model = family("qwen2", tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    other = torch.ones(96, 32)
    edit(tmp_path, lambda tensors: tensors.update({"lm_head.weight": other}))
    if tied:
        refused(tmp_path, "two different tensors")
        same = model.get_input_embeddings().weight.detach()
        edit(tmp_path, lambda tensors: tensors.update({"lm_head.weight": same.clone()}))
    check_model(policy(tmp_path))
    load_model(policy(tmp_path), seed=1)


def test_a_model_without_a_head_fits_a_reward_model_alone(family, tmp_path):
    family("llama").save_pretrained(tmp_path)
    edit(tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    refused(tmp_path, "lm_head")
    check_model(policy(tmp_path), score=True)
    assert load_score_model(policy(tmp_path), seed=1, pad=2).score.weight.abs().max() == 0
    edit(tmp_path, lambda tensors: tensors.pop("model.norm.weight"))
    for load in (
        lambda: check_model(policy(tmp_path), score=True),
        lambda: load_score_model(policy(tmp_path), seed=1, pad=2),
    ):
        with pytest.raises(ModelError, match=r"model\.norm\.weight"):
            load()


def test_a_reward_model_has_its_head(family, tmp_path):
    config = family("llama").config
    config.num_labels = 1
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    check_model(policy(tmp_path), score=True)
    refused(tmp_path, "lm_head")
    edit(tmp_path, lambda tensors: tensors.pop("score.weight"))
    with pytest.raises(ModelError, match=r"score\.weight"):
        check_model(policy(tmp_path), score=True)
    with pytest.raises(ModelError, match=r"score\.weight"):
        load_score_model(policy(tmp_path), seed=1, pad=2)


@pytest.mark.parametrize(("template", "fits"), [("", True), ("{{ messages }}<image>", False)])
def test_a_special_token_that_nothing_writes_needs_no_row(template, fits, family, vocabulary, tmp_path):
    family("llama").save_pretrained(tmp_path)
    tokenizer = vocabulary(96)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    asked = policy(tmp_path, init="random")
    if fits:
        assert len(load_tokenizer(asked)) == 97
        return
    with pytest.raises(ModelError, match=r"the first is '<image>' \(id 96\)"):
        load_tokenizer(asked)


@pytest.mark.parametrize(
    ("size", "added", "fits"), [(60, 0, True), (96, 0, True), (97, 0, False), (95, 2, False)]
)
@pytest.mark.parametrize("apart", [True, False])
def test_every_token_has_a_row(size, added, fits, apart, family, vocabulary, tmp_path):
    family("llama").save_pretrained(tmp_path)
    tokenizer = vocabulary(size)
    tokenizer.add_tokens([f"<{index}>" for index in range(added)])
    place = tmp_path / "other" if apart else tmp_path
    tokenizer.save_pretrained(place)
    asked = policy(tmp_path, tokenizer=str(place) if apart else None, init="random")
    if fits:
        assert len(load_tokenizer(asked)) == size
        return
    with pytest.raises(ModelError, match="1 beyond the embedding's 96 rows") as caught:
        load_tokenizer(asked)
    assert caught.value.file == str(place)
    assert caught.value.key == ("policy.tokenizer" if apart else "policy.path")


@pytest.mark.parametrize("chosen", [0, 5])
def test_experts_that_cannot_be_chosen_are_refused(chosen, deepseek_v2, tmp_path):
    settings = deepseek_v2(num_experts_per_tok=chosen)  # of 4
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=f"{chosen} of 4 experts cannot be chosen") as caught:
        check_model(policy(tmp_path, init="random"))
    assert caught.value.key == "num_experts_per_tok"


@pytest.mark.parametrize(
    ("published", "samples"),
    [
        ({"do_sample": False, "temperature": 0.6, "top_p": 0.9}, True),
        ({"do_sample": True, "temperature": 0.6}, True),
        ({"do_sample": False}, False),
    ],
)
def test_a_published_generation_config_is_written_again(published, samples, family, vocabulary, tmp_path):
    model = family("llama")
    for name, value in published.items():
        setattr(model.generation_config, name, value)
    model.generation_config.eos_token_id = [1, 2]
    save_model(model, vocabulary(60), tmp_path)
    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert written.get("do_sample", False) is samples
    assert written.get("temperature") == published.get("temperature")
    assert written["eos_token_id"] == [1, 2]


@pytest.mark.parametrize(
    ("name", "architecture", "fits"),
    [
        ("llama", "MistralForCausalLM", False),
        ("mistral", "LlamaForCausalLM", False),
        ("llama", "LlamaForCausalLM", True),
        ("llama", "LlamaModel", True),
        ("llama", "LlamaForSequenceClassification", True),
        ("llama", "MistralForSequenceClassification", False),
        ("deepseek_v3", "DeepseekV2ForCausalLM", False),
        ("qwen3_moe", "Qwen3ForCausalLM", False),
        ("llama", "ArchitectureOfSomebody", True),
    ],
)
def test_an_architecture_of_another_type_is_refused(name, architecture, fits, family, tmp_path):
    family(name).save_pretrained(tmp_path)
    configure(tmp_path, architectures=[architecture])
    if fits:
        return check_model(policy(tmp_path, init="random"))
    with pytest.raises(ModelError, match=f"{architecture}.* and model_type says {name}") as caught:
        check_model(policy(tmp_path))
    assert (caught.value.file, caught.value.key) == (str(tmp_path / "config.json"), "architectures")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "64"),
        ("hidden_size", None),
        ("hidden_size", [32]),
        ("hidden_size", 32.5),
        ("num_hidden_layers", -2),
        ("num_attention_heads", 0),
        ("num_attention_heads", True),
        ("num_key_value_heads", 0),
        ("vocab_size", "many"),
        ("intermediate_size", [48, 48]),
        ("head_dim", "8"),
        ("rms_norm_eps", "1e-6"),
        ("rms_norm_eps", 0),
        ("n_routed_experts", "4"),
        ("num_experts_per_tok", -1),
    ],
)
def test_no_number_where_one_belongs(key, value, folder):
    configure(folder, **{key: value})
    with pytest.raises(ModelError, match=rf"{key}: {key} is a .*number") as caught:
        check_model(policy(folder))
    assert (caught.value.file, caught.value.key) == (str(folder / "config.json"), key)
    with pytest.raises(ModelError, match=f"{key} is a "):  # the plan of a dry run reads it too
        read_config(str(folder))


@pytest.mark.parametrize("name", ["num_key_value_heads", "sliding_window"])
def test_what_may_be_null(name, family, tmp_path):
    family("llama", num_key_value_heads=4).save_pretrained(tmp_path)
    configure(tmp_path, **{name: None})
    check_model(policy(tmp_path))
