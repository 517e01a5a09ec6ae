"""The committed data and tokenizer are what their generators make, and are sound."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
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


STEPS = (
    (r"add (\d)", lambda x, k: x + k),
    (r"subtract (\d)", lambda x, k: x - k),
    (r"multiply by (\d)", lambda x, k: x * k),
    (r"take the remainder by (\d)", lambda x, k: x % k),
    (r"make it at least (\d)", lambda x, k: max(x, k)),
    (r"make it at most (\d)", lambda x, k: min(x, k)),
    (r"(double) it", lambda x, k: 2 * x),
    (r"(square) it", lambda x, k: x**2),
    (r"(change) its sign", lambda x, k: -x),
    (r"(drop) its sign", lambda x, k: abs(x)),
)


def steps_of(prompt: str) -> list:
    """What a request for a function of a number asks for, read off its text: functions of x."""
    found = []
    for words in re.split(r", (?:then )?", prompt.partition(": ")[2].rstrip(".")):
        ((match, function),) = [
            (m, function) for pattern, function in STEPS if (m := re.fullmatch(pattern, words))
        ]
        k = int(match[1]) if match[1].isdigit() else 0
        found.append(lambda x, function=function, k=k: function(x, k))
    return found


def carried_out(steps: list, x: int) -> int:
    for step in steps:
        x = step(x)
    return x


def of_a_number(name: str) -> list[dict]:
    return [row for row in rows(name) if "f(x)" in row["prompt"]]


def defined(completion: str):
    """The function that an answer defines."""
    space: dict = {}
    exec(completion, space)
    return space["f"]


def test_a_functions_tests_are_right_and_need_every_step():
    for name in ("code/prompts", "code/heldout"):
        for row in of_a_number(name):
            steps = steps_of(row["prompt"])
            cases = [re.fullmatch(r"assert f\((-?\d+)\) == (-?\d+)", test) for test in row["tests"]]
            wanted = [(int(case[1]), int(case[2])) for case in cases]
            assert len(set(wanted)) == 4
            assert all(carried_out(steps, x) == y for x, y in wanted)
            for i in range(len(steps)):
                less = [*steps[:i], *steps[i + 1 :]]
                assert any(carried_out(less, x) != y for x, y in wanted), (row, i)


def test_answers_with_brackets_are_right_and_some_without_are_not():
    wrong = {"direct": 0, "worked": 0}
    for row in of_a_number("code/sft"):
        function, steps = defined(row["completion"]), steps_of(row["prompt"])
        wrong[row["style"]] += any(function(x) != carried_out(steps, x) for x in range(-9, 13))
    assert wrong["worked"] == 0
    assert 500 < wrong["direct"] < 1000  # of 1,500: that brackets pay is for reinforcement learning to find


def test_answers_over_lists_pass_the_tests_of_the_same_request():
    answers = {wording(row["prompt"]): row["completion"] for row in rows("code/sft")}
    asked = [
        row for row in rows("code/prompts") if "f(a)" in row["prompt"] and wording(row["prompt"]) in answers
    ]
    assert len(asked) > 100
    for row in asked:
        space = {"f": defined(answers[wording(row["prompt"])])}
        for test in row["tests"]:
            exec(test, space)


def test_held_out_functions_are_never_asked_for():
    """However they are asked for: by what they compute."""

    def meaning(row: dict) -> object:
        if "f(a)" in row["prompt"]:
            return wording(row["prompt"])
        steps = steps_of(row["prompt"])
        return tuple(carried_out(steps, x) for x in range(-40, 41))

    held = {meaning(row) for row in rows("code/heldout")}
    assert len(held) == len(rows("code/heldout")) == 200
    assert not held & {meaning(row) for name in ("code/sft", "code/prompts") for row in rows(name)}
    kinds = {row["kind"] for row in rows("code/heldout")}
    assert kinds == {"steps_1", "steps_2", "steps_3", "list"}


def test_code_fits_into_an_answer():
    limit = yaml.safe_load((POLICY.parent / "grpo.yaml").read_text())["rollout"]["max_new_tokens"]
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    answers = [" " + row["completion"] + tokenizer.eos_token for row in rows("code/sft")]
    assert max(map(len, tokenizer(answers, add_special_tokens=False)["input_ids"])) <= limit


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
