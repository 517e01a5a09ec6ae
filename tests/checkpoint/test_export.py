import copy
import json
import os
from pathlib import Path

import pytest
import torch
import typer
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from align.checkpoint.export import export
from align.checkpoint.store import CheckpointStore
from align.cli.export import export as export_command
from align.errors import CheckpointError, ModelError

IDS = torch.tensor([[5, 9, 40, 7, 200, 31]])


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def reload(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_a_model_directory_keeps_weights_tokenizer_and_template(tiny_llama, tokenizer, save, tmp_path):
    source = save(tiny_llama, tmp_path / "source")
    out = export(source, tmp_path / "out", dtype="float32")
    assert torch.equal(logits(reload(out)), logits(tiny_llama))
    again = AutoTokenizer.from_pretrained(out)
    text = "  two  blanks, Grüße\n"
    assert again.decode(again(text)["input_ids"]) == text
    assert again.chat_template == tokenizer.chat_template
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == 1


def test_the_type_is_the_one_asked_for(tiny_llama, save, tmp_path):
    out = export(save(tiny_llama, tmp_path / "source"), tmp_path / "out", dtype="bfloat16")
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_experts_are_written_apart_and_routing_stays_fp32(tiny_moe, save, tmp_path):
    out = export(save(tiny_moe, tmp_path / "source"), tmp_path / "out", dtype="float32")
    written = load_file(out / "model.safetensors")
    for expert in range(4):
        assert written[f"model.layers.1.mlp.experts.{expert}.gate_proj.weight"].shape == (16, 32)
        assert written[f"model.layers.1.mlp.experts.{expert}.down_proj.weight"].shape == (32, 16)
    assert not any("gate_up_proj" in name for name in written)
    assert json.loads((out / "config.json").read_text())["moe_router_dtype"] == "float32"
    assert torch.equal(logits(reload(out)), logits(tiny_moe))


def test_adapters_are_merged(tiny_moe, save, tokenizer, tmp_path):
    base = save(tiny_moe, tmp_path / "base")
    model = reload(base)
    model.name_or_path = str(base)
    torch.manual_seed(1)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "o_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)  # peft starts it at zero
    adapted.save_pretrained(tmp_path / "adapter")
    out = export(tmp_path / "adapter", tmp_path / "out", dtype="float32")
    expected = logits(adapted)
    assert (expected - logits(tiny_moe)).abs().max() > 1e-3
    torch.testing.assert_close(logits(reload(out)), expected, atol=1e-5, rtol=1e-5)
    assert not any("lora" in name for name in load_file(out / "model.safetensors"))
    assert AutoTokenizer.from_pretrained(out).eos_token == "<end>"  # the base model's


def checkpoint(run: Path, model, save, step=3):
    store = CheckpointStore(run / "checkpoints", keep=2, recipe_hash="abc")
    return store.save(step, lambda folder: save(model, folder / "model"), {})


def test_a_run_stands_for_its_final_model_else_its_latest_checkpoint(tiny_llama, tiny_moe, save, tmp_path):
    run = tmp_path / "run"
    checkpoint(run, tiny_llama, save)
    out = export(run, tmp_path / "early")
    assert json.loads((out / "config.json").read_text())["model_type"] == "llama"
    save(tiny_moe, run / "final")
    out = export(run, tmp_path / "late")
    assert json.loads((out / "config.json").read_text())["model_type"] == "deepseek_v2"


def test_a_corrupt_checkpoint_is_not_exported(tiny_llama, save, tmp_path):
    path = checkpoint(tmp_path / "run", tiny_llama, save)
    weights = path / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match="sha256"):
        export(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_to_export(tmp_path):
    with pytest.raises(ModelError, match="no such file") as caught:
        export(tmp_path / "absent", tmp_path / "out")
    assert caught.value.file == str(tmp_path / "absent")
    with pytest.raises(ModelError, match="no model in here"):
        export(tmp_path, tmp_path / "out")


def test_an_occupied_place_is_left_alone(tiny_llama, save, tmp_path):
    source = save(tiny_llama, tmp_path / "source")
    with pytest.raises(ModelError, match="not empty"):
        export(source, source)


def test_a_model_without_tokenizer_is_refused(tiny_llama, tmp_path):
    tiny_llama.save_pretrained(tmp_path / "source")
    with pytest.raises(ModelError, match="no tokenizer"):
        export(tmp_path / "source", tmp_path / "out")


def test_damaged_weights_name_the_directory(tiny_llama, save, tmp_path):
    source = save(tiny_llama, tmp_path / "source")
    (source / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights") as caught:
        export(source, tmp_path / "out")
    assert caught.value.file == str(source)
    assert list(tmp_path.iterdir()) == [source]


def test_written_weights_may_be_read_like_their_neighbours(tiny_llama, save, tmp_path):
    before = os.umask(0o027)
    try:
        out = export(save(tiny_llama, tmp_path / "source"), tmp_path / "out")
    finally:
        os.umask(before)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in out.iterdir()} == {
        file.name: "0o640" for file in out.iterdir()
    }


def edit(folder, change):
    """Rewrite the weights of a model directory."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("lm_head.weight"), "lacks weights: lm_head.weight"),
        (lambda t: t.update({"lm_head.weight": torch.zeros(7, 32)}), r"stored as \[7, 32\]"),
        (lambda t: t.update({"model.layers.2.mlp.gate.weight": torch.zeros(4, 32)}), "does not compute with"),
        (
            lambda t: t.pop("model.layers.1.mlp.experts.3.up_proj.weight"),
            "cannot load it|not fit|stored as",
        ),
    ],
)
def test_weights_that_are_not_the_models_are_refused(change, message, tiny_moe, save, tmp_path):
    source = save(tiny_moe, tmp_path / "source")
    edit(source, change)
    with pytest.raises(ModelError, match=message) as caught:
        export(source, tmp_path / "out")
    assert caught.value.file == str(source)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_larger_than_the_embedding_is_refused(tiny_llama, tokenizer, tmp_path):
    tiny_llama.save_pretrained(tmp_path / "source")
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens(["<think>"])
    larger.save_pretrained(tmp_path / "source")
    with pytest.raises(ModelError, match=r"no embedding for.*'<think>' .id 259"):
        export(tmp_path / "source", tmp_path / "out")


def test_a_reward_model_keeps_its_head(tiny_llama, save, tmp_path):
    config = copy.deepcopy(tiny_llama.config)
    config.num_labels, config.pad_token_id = 1, 0
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    out = export(save(model, tmp_path / "source"), tmp_path / "out", dtype="float32")
    again = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32)
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("fault", ["lacks", "damaged", "stranger", "config"])
def test_a_faulty_adapter_is_one_clear_error(fault, tiny_moe, save, tmp_path):
    base = save(tiny_moe, tmp_path / "base")
    model = reload(base)
    model.name_or_path = str(base)
    adapter = tmp_path / "adapter"
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "o_proj"])).save_pretrained(adapter)
    weights = adapter / "adapter_model.safetensors"
    settings = json.loads((adapter / "adapter_config.json").read_text())
    if fault == "lacks":
        tensors = load_file(weights)
        save_file({name: each for name, each in tensors.items() if "q_proj" not in name}, weights)
    elif fault == "damaged":
        weights.write_bytes(weights.read_bytes()[:200])
    elif fault == "stranger":
        (adapter / "adapter_config.json").write_text(json.dumps(settings | {"target_modules": ["c_attn"]}))
    else:
        (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="adapter") as caught:
        export(adapter, tmp_path / "out")
    assert caught.value.file.startswith(str(adapter))


def test_the_command(tiny_llama, save, tmp_path):
    app = typer.Typer()
    app.command()(export_command)
    source = save(tiny_llama, tmp_path / "source")
    done = CliRunner().invoke(app, [str(source), "--out", str(tmp_path / "out"), "--dtype", "float32"])
    assert done.exit_code == 0, done.output
    assert "exported to" in done.output
    assert torch.equal(logits(reload(tmp_path / "out")), logits(tiny_llama))
    assert CliRunner().invoke(app, [str(source), "--out", "x", "--dtype", "int3"]).exit_code == 2
