from __future__ import annotations

import logging

import pytest

from align.config.data import DataConfig, EvalConfig
from align.config.grpo import GrpoConfig
from align.dataset.chat import render_prompt, set_template
from align.dataset.prompts import load_eval_prompts, load_prompts
from align.errors import DataError

ROWS = [{"question": f"{n} + 1?", "answer": n + 1, "level": {"hard": n > 5}} for n in range(10)]
PART = {"columns": {"prompt": "question"}, "system": "Add."}


@pytest.fixture
def asked(tokenizer):
    set_template(tokenizer, "deepseek_v2")
    return tokenizer


def grpo(**settings):
    return GrpoConfig(prompts_per_step=4).model_copy(update=settings)


def test_prompts_are_rendered_and_keep_their_columns(asked, write):
    data = DataConfig(path=write("a.jsonl", ROWS), parts={"sums": PART})
    prompts = load_prompts(data, asked, grpo())
    assert [prompt.id for prompt in prompts] == [f"sums/{n}" for n in range(10)]
    third = prompts[3]
    assert third.messages == ({"role": "system", "content": "Add."}, {"role": "user", "content": "3 + 1?"})
    assert third.token_ids == render_prompt(asked, third.messages)
    assert asked.decode(third.token_ids).endswith("Add.\n\nUser: 3 + 1?\n\nAssistant:")
    assert third.columns == {"question": "3 + 1?", "answer": 4, "level": {"hard": False}}
    assert third.part == "sums"


def test_a_prompt_may_be_a_conversation(asked, write):
    talk = [
        {"role": "user", "content": "1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3?"},
    ]
    data = DataConfig(path=write("a.jsonl", [{"prompt": talk}] * 4))
    assert load_prompts(data, asked, grpo())[0].token_ids == render_prompt(asked, talk)


@pytest.mark.parametrize(
    ("prompt", "from_text"),
    [("question", True), ("[{'role': 'user', 'content': question}]", False)],
)
def test_a_prompt_says_whether_it_was_text(asked, write, prompt, from_text):
    part = {"columns": {"prompt": prompt}, "system": "Add."}
    data = DataConfig(path=write("a.jsonl", ROWS), parts={"sums": part})
    for each in load_prompts(data, asked, grpo()):
        assert each.from_text is from_text
        assert [message["role"] for message in each.messages] == ["system", "user"]


def test_overlong_prompts(asked, write, caplog):
    rows = [*ROWS, {"question": "long " * 50, "answer": 0}]
    data = DataConfig(path=write("a.jsonl", rows), parts={"sums": PART})
    with pytest.raises(DataError, match=r"row sums/10: the prompt has \d+ tokens, more than 64") as caught:
        load_prompts(data, asked, grpo(max_prompt_tokens=64), file="r.yaml")
    assert (caught.value.file, caught.value.key) == ("r.yaml", "grpo.max_prompt_tokens")
    with caplog.at_level(logging.WARNING):
        kept = load_prompts(data, asked, grpo(max_prompt_tokens=64, overlong_prompts="drop"))
    assert len(kept) == 10
    assert "part sums: 1 of 11 prompts longer than 64 tokens dropped" in caplog.text
    with pytest.raises(DataError, match="so have 11 of the 11 prompts"):
        load_prompts(data, asked, grpo(max_prompt_tokens=2, overlong_prompts="drop"))
    exactly = max(len(prompt.token_ids) for prompt in kept)
    assert len(load_prompts(data, asked, grpo(max_prompt_tokens=exactly, overlong_prompts="drop"))) == 10


def test_too_few_prompts_for_a_step(asked, write):
    path = write("a.jsonl", ROWS)
    parts = {"few": {**PART, "limit": 2, "weight": 3}, "many": {**PART, "weight": 1}}
    with pytest.raises(
        DataError, match="a step takes 3 different prompts of part 'few', which has 2"
    ) as caught:
        load_prompts(DataConfig(path=path, parts=parts), asked, grpo())
    assert caught.value.key == "grpo.prompts_per_step"
    with pytest.raises(DataError, match="takes 11 different prompts of part 'train', which has 10"):
        load_prompts(DataConfig(path=path, parts={"train": PART}), asked, grpo(prompts_per_step=11))
    assert load_prompts(DataConfig(path=path, parts={"train": PART}), asked, grpo(prompts_per_step=10))


def test_faults_name_the_row(asked, write):
    rows = [{"prompt": "1?"}, {"prompt": ""}]
    with pytest.raises(DataError, match=r"row train/1: turn 1 \(user\) is empty") as caught:
        load_prompts(DataConfig(path=write("a.jsonl", rows)), asked, grpo(), file="r.yaml")
    assert (caught.value.file, caught.value.key) == ("r.yaml", "data.parts.train")


def test_eval_prompts(asked, write):
    path = write("a.jsonl", ROWS)
    part = {**PART, "metric": "exact_answer"}
    config = EvalConfig(
        path=path, parts={"easy": {**part, "where": "not level.hard"}, "hard": {**part, "limit": 2}}
    )
    found = load_eval_prompts(config, asked)
    assert [prompt.id for prompt in found["easy"]] == [f"easy/{n}" for n in range(6)]
    assert [prompt.id for prompt in found["hard"]] == ["hard/0", "hard/1"]
    assert load_eval_prompts(EvalConfig(), asked) == {}
    with pytest.raises(DataError, match="row easy/0: the prompt has"):
        load_eval_prompts(config, asked, grpo(max_prompt_tokens=4))
    with pytest.raises(DataError, match="no such file") as caught:
        load_eval_prompts(EvalConfig(path="x/no.jsonl", parts={"easy": part}), asked, file="r.yaml")
    assert caught.value.key == "eval.path"


def test_half_a_surrogate_pair_in_any_column(asked, write):
    """Rewards and the run's files get all of them."""
    for row in ({"prompt": "\ud800"}, {"prompt": "1?", "answer": ["a", {"b": "\udfff"}]}):
        path = write("a.jsonl", [{"prompt": "1?", "answer": None}, row])
        with pytest.raises(DataError, match=r"row train/1: .* half of a surrogate pair") as caught:
            load_prompts(DataConfig(path=path), asked, grpo())
        assert (caught.value.key, bool(caught.value.remedy)) == ("data.parts.train", True)


def test_overlong_prompts_are_not_to_be_dropped_twice(asked, write):
    data = DataConfig(path=write("a.jsonl", ROWS), parts={"sums": PART})
    with pytest.raises(DataError) as caught:
        load_prompts(data, asked, grpo(max_prompt_tokens=2, overlong_prompts="drop"))
    assert caught.value.remedy == "raise grpo.max_prompt_tokens"


def test_a_prompt_from_sharegpt(asked, write):
    talk = [{"from": "human", "value": "1?"}, {"from": "gpt", "value": "2"}]
    path = write("a.jsonl", [{"conversations": talk}] * 4)
    with pytest.raises(DataError, match="no prompt in the columns conversations") as caught:
        load_prompts(DataConfig(path=path), asked, grpo())
    assert "{prompt: 'conversations[:-1]'}" in caught.value.remedy
    part = {"columns": {"prompt": "conversations[:-1]"}}
    found = load_prompts(DataConfig(path=path, parts={"a": part}), asked, grpo())
    assert found[0].messages == ({"role": "user", "content": "1?"},)
