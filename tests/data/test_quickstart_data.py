"""The committed data and tokenizer are what their generators make, and are sound."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "data" / "quickstart"
POLICY = ROOT / "recipes" / "quickstart" / "policy"
sys.path.insert(0, str(ROOT / "data"))
from generators.maths import STORIES  # noqa: E402
from generators.safety import FAMILIES, HELD_OUT  # noqa: E402

sys.path.pop(0)

EXPRESSION = re.compile(r"\d+(?: [+*-] \d+){2,}")
STORY_PATTERNS = [
    (operators, re.compile(re.sub(r"\\{([nmtabc])\\}", r"\\w+", re.escape(story))))
    for operators, stories in STORIES.items()
    for story in stories
]


def rows(name: str) -> list[dict]:
    return [
        json.loads(line) for line in (QUICKSTART / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def run(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "data" / script), *args], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("script", ["make_quickstart.py", "make_tokenizer.py"])
def test_committed_files_are_what_the_script_makes(script):
    result = run(script, "--check")
    assert result.returncode == 0, result.stdout + result.stderr


def test_check_notices_a_change(tmp_path):
    assert run("make_quickstart.py", "--out", str(tmp_path), "--sft", "50", "--prompts", "20").returncode == 0
    result = run("make_quickstart.py", "--out", str(tmp_path), "--check")
    assert result.returncode == 1
    assert "maths_sft.jsonl" in result.stdout


def test_knobs(tmp_path):
    made = run(
        "make_quickstart.py", "--out", str(tmp_path), "--sft", "200", "--worked", "1", "--max-operand", "20"
    )
    assert made.returncode == 0, made.stderr
    written = [json.loads(line) for line in (tmp_path / "maths_sft.jsonl").read_text().splitlines()]
    assert len(written) == 200
    assert {row["style"] for row in written} == {"worked"}
    assert max(int(n) for row in written for n in re.findall(r"\d+", row["prompt"])) <= 20


def test_size():
    assert sum(file.stat().st_size for file in QUICKSTART.iterdir()) < 4_000_000


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text))


def expression(question: str) -> str:
    """The formula of a question, read off its text: a chain says it, a story has its pattern's words."""
    if found := EXPRESSION.search(question):
        return found.group()
    a, b, c = numbers(question)
    for (first, second), pattern in STORY_PATTERNS:
        if pattern.fullmatch(question):
            return f"{a} {first} {b} {second} {c}"
    raise AssertionError(question)


def test_held_out_problems_are_never_trained_on():
    """No formula of the held-out file, whatever story surrounds it."""
    held = [expression(row["prompt"]) for row in rows("maths_heldout")]
    assert len(set(held)) == len(held) == 400
    for name in ("maths_sft", "maths_prompts"):
        assert not set(held) & {expression(row["prompt"]) for row in rows(name)}


def test_every_answer_is_right():
    """Recomputed from the text of the question, not from what the generator remembers."""
    kinds = set()
    for name in ("maths_prompts", "maths_heldout"):
        for row in rows(name):
            assert int(row["answer"]) == eval(expression(row["prompt"]))
            kinds.add(row["kind"])
    for row in rows("maths_sft"):
        assert int(row["completion"].rpartition("Answer: ")[2]) == eval(expression(row["prompt"]))
    assert kinds == {"chain", "word", "chain_times", "word_times"}


def test_worked_answers_show_right_steps():
    styles = {"direct": 0, "worked": 0}
    for row in rows("maths_sft"):
        styles[row["style"]] += 1
        *steps, answer = row["completion"].split(". ") if ". " in row["completion"] else [row["completion"]]
        for step in steps:
            left, right = step.split(" = ")
            assert 0 <= eval(left) == int(right) <= 99
        if steps:
            assert answer == f"Answer: {steps[-1].split(' = ')[1]}"
            first, *others = numbers(row["prompt"])
            assert numbers(steps[0])[0] == first
            assert [numbers(step)[1] for step in steps] == others
        else:
            assert re.fullmatch(r"Answer: \d{1,2}", answer)
    assert min(styles.values()) > 0.2 * sum(styles.values())  # both ways are there to be compared


def test_functions_pass_their_tests_and_held_out_ones_are_new():
    """By running them; the tests were reckoned step by step, without the code."""
    folder = QUICKSTART / "code"
    taught, asked, held = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("sft", "prompts", "heldout")
    )
    solutions = {wording(row["prompt"]): row["completion"] for row in taught if row["style"] == "worked"}
    checked = 0
    for row in asked:
        assert len(set(row["tests"])) == len(row["tests"]) == 4
        if (code := solutions.get(wording(row["prompt"]))) is not None:
            space: dict = {}
            exec(code, space)
            for test in row["tests"]:
                exec(test, space)
            checked += 1
    assert checked > 200
    new = {wording(row["prompt"]) for row in held}
    assert len(new) == len(held) == 200
    assert not new & {wording(row["prompt"]) for row in taught}
    assert not new & {wording(row["prompt"]) for row in asked}
    assert {row["kind"] for row in held} == {"steps_1", "steps_2", "steps_3", "list"}


def test_some_functions_forget_brackets():
    taught = [json.loads(line) for line in (QUICKSTART / "code" / "sft.jsonl").read_text().splitlines()]
    right = {wording(row["prompt"]): row["completion"] for row in taught if row["style"] == "worked"}
    pairs = [
        (row["completion"], right[wording(row["prompt"])])
        for row in taught
        if row["style"] == "direct" and wording(row["prompt"]) in right
    ]
    wrong = 0
    for direct, worked in pairs:
        assert direct.replace("(", "").replace(")", "") == worked.replace("(", "").replace(")", "")
        spaces: list[dict] = [{}, {}]
        exec(direct, spaces[0])
        exec(worked, spaces[1])
        if "f(x)" in direct:
            wrong += any(spaces[0]["f"](x) != spaces[1]["f"](x) for x in range(-9, 13))
    assert 0.2 < wrong / len(pairs) < 0.6  # that brackets pay is for reinforcement learning to find


def test_no_constant_passes_a_functions_tests():
    for name in ("prompts", "heldout"):
        for line in (QUICKSTART / "code" / f"{name}.jsonl").read_text().splitlines():
            assert len({test.partition(" == ")[2] for test in json.loads(line)["tests"]}) > 1


def wording(prompt: str) -> str:
    """What is asked, without the form that asks it."""
    return prompt.partition(" f(")[2]


def test_safety_files():
    held = rows("safety_heldout")
    assert sum(row["should_refuse"] for row in held) == 100
    trained = {row["prompt"] for name in ("safety_sft", "safety_prompts") for row in rows(name)}
    assert len(trained) == 2200
    assert not trained & {row["prompt"] for row in held}
    assert not {row["prompt"] for row in rows("safety_sft")} & {
        row["prompt"] for row in rows("safety_prompts")
    }
    for row in rows("safety_sft"):
        refuses = bool(re.search(r"can't help|won't help", row["completion"]))
        assert refuses == row["should_refuse"] == row["kind"].startswith("harmful_")


def test_held_out_requests_use_unseen_phrases():
    """Not the wording alone: verb and object together never occur in training."""
    trained = "\n".join(row["prompt"] for name in ("safety_sft", "safety_prompts") for row in rows(name))
    for family in FAMILIES:
        for template, things in (
            (family.harmful, family.harmful_objects),
            (family.harmless, family.harmless_objects),
        ):
            for thing in things[-HELD_OUT:]:
                assert not re.search(rf"\b{re.escape(template.format(thing))}\b", trained)


def test_conversations_alternate():
    several = 0
    for row in rows("helpful_sft"):
        roles = [message["role"] for message in row["messages"]]
        talk = roles[1:] if roles[0] == "system" else roles
        assert talk == ["user", "assistant"] * (len(talk) // 2)
        several += len(talk) > 2
    assert several > 300


def test_tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    assert len(tokenizer) == AutoConfig.from_pretrained(POLICY).vocab_size
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 1)
    assert tokenizer.bos_token == "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
    assert tokenizer.eos_token == "<\uff5cend\u2581of\u2581sentence\uff5c>"
    for text in ("What is 7 + 15 - 4?", "  two  spaces ", "a\n\n\tb\r\n", "你好 🙂 é ｜▁", "1234567890", ""):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert tokenizer.tokenize("12 + 3 = 15")[1:3] == ["Ġ+Ġ", "3"]
    for token in range(len(tokenizer)):  # a number is spelled the same way wherever it stands
        text = tokenizer.decode([token])
        assert text.isdigit() or not any(letter.isdigit() for letter in text)


def test_policy_has_deepseek_v2s_shape():
    config = AutoConfig.from_pretrained(POLICY)
    assert (config.kv_lora_rank, config.qk_rope_head_dim, config.n_shared_experts) == (512, 64, 2)
    assert config.moe_router_dtype == "float32"
    # With pad = eos as padding_idx the end token's embedding would stay zero and get no gradient.
    assert config.pad_token_id is None
    model = AutoModelForCausalLM.from_config(config)
    assert type(model).__name__ == "DeepseekV2ForCausalLM"
    assert 1.5e6 < sum(parameter.numel() for parameter in model.parameters()) < 4e6
