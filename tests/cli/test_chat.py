"""`align chat` with a real model of random weights: what is asked is what the template says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def parts(tiny_model: Path) -> tuple[Any, Any]:
    from align.config.policy import PolicyConfig
    from align.model.files.load import load_model, load_tokenizer

    policy = PolicyConfig(path=str(tiny_model), dtype="float32")
    model = load_model(policy, seed=0).eval()
    model.config.use_cache = True
    return model, load_tokenizer(policy)


def greedy(parts: tuple[Any, Any], messages: list[dict[str, str]], count: int) -> str:
    """The answer by repeated whole forward passes: no cache, no generate."""
    import torch

    model, tokenizer = parts
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    start = len(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True)).strip()


def test_lines_of_a_pipe_are_turns_of_one_conversation(
    align: Callable[..., Any], tiny_model: Path, parts: tuple[Any, Any]
) -> None:
    done = align(
        "chat",
        str(tiny_model),
        "--temperature",
        "0",
        "--max-new-tokens",
        "6",
        input="One?\n\nTwo?\n/quit\nThree?\n",
    )
    assert done.exit_code == 0, done.stderr
    first = greedy(parts, [{"role": "user", "content": "One?"}], 6)
    turns = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Two?"},
    ]
    assert [line.strip() for line in done.stdout.splitlines()] == [first, greedy(parts, turns, 6)]


def test_system_message_and_reset(
    align: Callable[..., Any], tiny_model: Path, parts: tuple[Any, Any]
) -> None:
    lines = "One?\n/reset\nOne?\n/system Be kind.\nOne?\n"
    done = align(
        "chat",
        str(tiny_model),
        "--system",
        "Be brief.",
        "--temperature",
        "0",
        "--max-new-tokens",
        "5",
        input=lines,
    )
    brief, kind = (
        greedy(parts, [{"role": "system", "content": text}, {"role": "user", "content": "One?"}], 5)
        for text in ("Be brief.", "Be kind.")
    )
    assert [line.strip() for line in done.stdout.splitlines()] == [brief, brief, kind]


def test_sampling_follows_the_seed(align: Callable[..., Any], tiny_model: Path) -> None:
    answers = [
        align("chat", str(tiny_model), "--seed", seed, "--max-new-tokens", "12", input="Hello\n").stdout
        for seed in ("1", "1", "2")
    ]
    assert answers[0] == answers[1] != answers[2]


def test_an_unknown_slash_command_shows_help(align: Callable[..., Any], tiny_model: Path) -> None:
    done = align("chat", str(tiny_model), input="/what\n")
    assert "/reset forgets" in done.stderr
    assert done.stdout == ""


def test_a_run_directory_stands_for_its_final_model(
    align: Callable[..., Any], tiny_model: Path, work: Path
) -> None:
    (work / "run").mkdir()
    (work / "run" / "final").symlink_to(tiny_model)
    done = align("chat", "run", "--temperature", "0", "--max-new-tokens", "3", input="Hi\n")
    assert done.exit_code == 0
    assert done.stdout.strip()


def test_an_answer_ends_where_the_model_can_read_no_further(
    parts: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from align.cli.chat import Conversation

    model, tokenizer = parts
    room = model.config.max_position_embeddings
    conversation = Conversation(model, tokenizer, max_new_tokens=64, temperature=0.0)
    filler = "a " * (room - 40)
    while len(tokenizer(filler)["input_ids"]) > room - 30:
        filler = filler[:-20]
    conversation.ask(filler)
    prompt = tokenizer.apply_chat_template(
        conversation.messages, tokenize=True, return_dict=False, add_generation_prompt=True
    )
    assert len(prompt) <= room + 8  # nothing was generated past the limit


def test_a_conversation_that_is_too_long(align: Callable[..., Any], tiny_model: Path) -> None:
    done = align("chat", str(tiny_model), input="word " * 2000 + "\n")
    assert done.exit_code == 2
    assert "the model reads 512" in done.stderr
    assert "/reset" in done.stderr


def test_what_was_said_before_ctrl_c_stays(
    parts: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from align.cli.chat import Conversation, _Aloud

    put = _Aloud.put

    def interrupted(self: Any, tokens: Any) -> None:
        put(self, tokens)
        if len(self.ids) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(_Aloud, "put", interrupted)
    conversation = Conversation(*parts, max_new_tokens=20, temperature=0.0)
    answer = conversation.ask("Hello")
    assert answer == greedy(parts, [{"role": "user", "content": "Hello"}], 3)
    assert conversation.messages[-1] == {"role": "assistant", "content": answer}
    assert capsys.readouterr().out.strip() == answer


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent/x/y", None, "no such model directory"),
        ("empty", {}, "no config.json in this directory"),
        ("bare", {"config.json": {"model_type": "llama"}}, "no tokenizer"),
    ],
)
def test_what_is_no_model(
    align: Callable[..., Any], work: Path, name: str, content: dict[str, Any] | None, reason: str
) -> None:
    if content is not None:
        (work / name).mkdir()
        for file, value in content.items():
            (work / name / file).write_text(json.dumps(value))
    done = align("chat", name, input="hi\n")
    assert done.exit_code == 2
    assert reason in done.stderr
    assert "remedy:" in done.stderr
