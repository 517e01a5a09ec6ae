"""Data sets as people publish them. Nothing of them is printed: some are harmful on purpose."""

from __future__ import annotations

import pytest

from align.config.data import DataConfig
from align.config.grpo import GrpoConfig
from align.config.sft import SftConfig
from align.dataset.chat import set_template
from align.dataset.conversations import load_conversations
from align.dataset.prompts import load_prompts
from align.dataset.rows.parts import load_parts
from align.errors import DataError

NO_EMPTY_TURN = "'' not in messages | map(attribute='content') | map('trim')"


@pytest.fixture
def ready(tokenizer):
    set_template(tokenizer, "deepseek_v2")
    return tokenizer


def conversations(tokenizer, path, **part):
    data = DataConfig(path=str(path), parts={"part": {"limit": 300, **part}})
    return load_conversations(data, tokenizer, SftConfig(max_length=100_000), seed=0)


def answers(loaded, tokenizer):
    """The trained text of every conversation."""
    return [tokenizer.decode(tokens) for tokens in trained_tokens(loaded)]


def trained_tokens(loaded):
    return [
        [token for token, bit in zip(row["input_ids"], row["assistant_masks"], strict=True) if bit]
        for row in loaded.rows
    ]


def test_gsm8k_prompts_from_a_folder(ready, shared_data):
    part = {"columns": {"prompt": "question", "answer": "answer.split('####')[-1] | number"}}
    for split, rows in (("train", 7473), ("test", 1319)):
        loaded = load_parts(
            DataConfig(path=str(shared_data / "gsm8k"), parts={"gsm8k": {**part, "split": split}})
        )
        assert loaded[0].found == len(loaded[0].rows) == rows
        assert all(isinstance(row.columns["answer"], int) for row in loaded[0].rows)
    data = DataConfig(path=str(shared_data / "gsm8k"), parts={"gsm8k": {**part, "limit": 50}})
    prompts = load_prompts(data, ready, GrpoConfig(overlong_prompts="drop", max_prompt_tokens=400))
    assert prompts[0].columns["answer"] == 72
    assert 20 < len(prompts) <= 50


def test_gsm8k_solutions(ready, shared_data):
    columns = {"prompt": "question", "completion": "answer | regex_replace('<<[^>]*>>', '')"}
    found = answers(conversations(ready, shared_data / "gsm8k", columns=columns), ready)
    assert len(found) == 300
    assert not any("<<" in text for text in found)
    assert all("#### " in text and text.endswith(ready.eos_token) for text in found)


def test_dolly_csv(ready, shared_data):
    columns = {
        "prompt": "instruction ~ '\n\n' ~ context if context else instruction",
        "completion": "response",
    }
    loaded = conversations(ready, shared_data / "dolly_1k", columns=columns, limit=1000)
    assert loaded.summary[0].found == loaded.summary[0].rows == 1000


def test_alpaca_json(ready, shared_data):
    loaded = conversations(ready, shared_data / "rasbt_instruct" / "instruction-data.json", limit=1100)
    assert loaded.summary[0].rows == 1100
    assert answers(loaded, ready)[1] == f" He goes to the park every day.{ready.eos_token}"


@pytest.mark.parametrize(
    ("name", "rows", "left_out"),
    [("harmless-base", 1898, 4), ("helpful-base", 2354, 1), ("helpful-rejection-sampled", 2746, 0)],
)
def test_hh_transcripts(shared_data, name, rows, left_out):
    part = {"columns": {"messages": "chosen | transcript"}, "where": NO_EMPTY_TURN}
    path = str(shared_data / "hh_rlhf" / f"{name}.jsonl.gz")
    (loaded,) = load_parts(DataConfig(path=path, parts={"hh": part}))
    assert (loaded.found, loaded.excluded) == (rows, left_out)
    for row in loaded.rows:
        roles = [message["role"] for message in row.columns["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_hh_conversations(ready, shared_data):
    path = shared_data / "hh_rlhf" / "harmless-base.jsonl.gz"
    columns = {"messages": "chosen | transcript"}
    loaded = conversations(ready, path, columns=columns, where=NO_EMPTY_TURN)
    turns = [row["input_ids"].count(ready.eos_token_id) for row in loaded.rows]
    assert max(turns) > 2  # several turns, each with its end token trained
    assert [tokens.count(ready.eos_token_id) for tokens in trained_tokens(loaded)] == turns
    with pytest.raises(DataError, match=r"row part/\d+: turn \d+ \(assistant\) is empty") as caught:
        conversations(ready, path, columns=columns, limit=1898)
    assert "where:" in caught.value.remedy


def test_belle_chinese(ready, shared_data):
    path = shared_data / "belle_zh" / "eval_set.jsonl"
    columns = {"prompt": "question", "completion": "std_answer"}
    loaded = conversations(ready, path, columns=columns, where="std_answer | trim", limit=1000)
    assert (loaded.summary[0].found, loaded.summary[0].rows) == (1000, 631)
    first = load_parts(DataConfig(path=str(path)))[0].rows[0].columns["std_answer"]
    assert answers(loaded, ready)[0] == f" {first}{ready.eos_token}"


def test_refusals_csv(ready, shared_data):
    columns = {"prompt": "Behavior", "completion": "Safe_Response"}
    path = shared_data / "harmbench_refusal_sft" / "safe_responses.csv"
    assert conversations(ready, path, columns=columns).summary[0].rows == 100
