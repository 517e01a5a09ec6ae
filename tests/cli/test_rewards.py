from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from align.cli.main import app

Write = Callable[[str, str], str]


def align(*args: str) -> Result:
    return CliRunner().invoke(app, ["rewards", *args])


def table(result: Result) -> list[list[str]]:
    """The words of the printed lines below the header."""
    return [line.split() for line in result.stdout.splitlines()[2:]]


def test_list_shows_every_shipped_reward() -> None:
    result = align("list")
    assert result.exit_code == 0, result.output
    for name in ("exact_answer", "format", "length", "refusal", "refusal:refused", "repetition"):
        assert f"\n{name} " in result.stdout
    assert "Whether" not in result.stdout  # helpers are no rewards


def test_list_shows_an_unusable_file_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "broken.py").write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path)
    result = align("list")
    assert result.exit_code == 0
    assert "unusable" in result.stdout
    assert "exact_answer" in result.stdout


def test_test_on_built_in_rows() -> None:
    result = align("test", "exact_answer")
    assert result.exit_code == 0, result.output
    assert "exact_answer (native)" in result.stdout
    assert [line[-2] for line in table(result)] == ["1", "1", "0", "1", "0", "0", "0"]


def test_test_on_a_file_with_columns_and_arguments(write: Write) -> None:
    rows = [
        {"question": "2+2?", "model": {"text": "It is \\boxed{4}, not 5"}, "answer": 4},
        {"question": "2+3?", "model": {"text": "It is \\boxed{4}, not 5"}, "answer": 5},
    ]
    data = write("rows.jsonl", "\n".join(map(json.dumps, rows)))
    source = ("--data", data, "--column", "completion=model.text", "--column", "prompt=question")
    assert [line[-2] for line in table(align("test", "exact_answer", *source))] == ["1", "0"]
    by_mark = align("test", "exact_answer", *source, "--arg", "extract=hash", "--limit", "1")
    assert [line[-2] for line in table(by_mark)] == ["0"]


def test_arguments_are_read_as_in_a_recipe(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        "mine.py",
        "def mine(sample, **args):\n"
        "    assert args == {'rate': 1e-3, 'word': 'NO', 'octal': 10, 'clock': '12:30', 'on': True,\n"
        f"        'file': '{tmp_path}/words.txt', 'none': None, 'many': [1, 'off']}}, args\n"
        "    return len(sample.completion)\n",
    )
    monkeypatch.chdir(tmp_path)
    texts = ("rate=1e-3", "word=NO", "octal=0xa", "clock=12:30", "on=true", "file=./words.txt", "none=",
             "many=[1, off]")  # fmt: skip
    result = align("test", path, *(part for text in texts for part in ("--arg", text)))
    assert result.exit_code == 0, result.output
    assert "warning:" not in result.output


def test_a_constant_is_told(write: Write) -> None:
    path = write("mine.py", "def mine(completions, **kw): return [len(each) for each in completions]\n")
    result = align("test", path)
    assert result.exit_code == 0
    assert "warning: mine gives 1 to each of 7 different answers" in result.stdout
    assert "it gets completions as messages" in " ".join(result.stdout.split())
    data = write("rows.jsonl", '{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": "cc"}\n')
    result = align("test", path, "--data", data)
    assert [line[-2] for line in table(result)] == ["1", "2"]
    assert "warning:" not in result.output


def test_built_in_rows_as_texts(write: Write) -> None:
    path = write(
        "mine.py", "def mine(completions, **kw): return [each.endswith('42') for each in completions]\n"
    )
    result = align("test", path, "--text")
    assert [line[-2] for line in table(result)] == ["1", "0", "0", "0", "0", "1", "0"]
    result = align("test", path)
    assert result.exit_code == 2
    assert (
        "AttributeError: 'list' object has no attribute 'endswith' (the row's prompt is messages"
        in result.stderr
    )
    assert "or texts in place of messages (--text)" in result.stderr


def test_a_function_of_an_installed_package() -> None:
    result = align("test", "trl.rewards:think_format_reward")
    assert result.exit_code == 0, result.output
    assert "think_format_reward (trl) from trl.rewards:think_format_reward" in result.stdout
    assert [line[-2] for line in table(result)] == ["0", "0", "0", "1", "0", "0", "0"]


def test_failing_calls_are_shown_and_end_with_2(write: Write) -> None:
    path = write("mine.py", "def mine(sample): return sample['nothing']\n")
    result = align("test", path)
    assert result.exit_code == 2
    assert result.stdout.count(" error ") == 7
    assert f"error: {path}: mine: 7 of 7 calls failed; the first:" in result.stderr
    assert "remedy:" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing_like_it"], "no reward function named"),
        (["no/file.py"], "no such reward file"),
        (["format"], "needs the argument 'pattern'"),
        (["format", "--arg", "pattern"], "cannot read 'pattern'"),
        (["format", "--arg", "pattern=[a"], "the value '[a' is not YAML"),
        (["nothing.like.it:f"], "no module named 'nothing'"),
        (["exact_answer", "--data", "none.jsonl"], "no such data file"),
        (["exact_answer", "--data", "EMPTY"], "the data file is empty"),
        (["exact_answer", "--data", "TEXT"], "line 1 is not JSON"),
        (["exact_answer", "--data", "LIST"], "line 1 is not an object"),
        (["exact_answer", "--data", "ROWS"], "has no text in 'completion'"),
        (["exact_answer", "--data", "ROWS", "--column", "completion=a.c"], "line 1 has no field 'a.c'"),
    ],
)
def test_bad_input_is_one_clear_error(write: Write, args: list[str], message: str) -> None:
    texts = {"EMPTY": "", "TEXT": "hello\n", "LIST": "[1]\n", "ROWS": '{"a": {"b": 1}}\n'}
    args = [write(arg, texts[arg]) if arg in texts else arg for arg in args]
    result = align("test", *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "remedy:" in result.stderr
    assert "Traceback" not in result.output
