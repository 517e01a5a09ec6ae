"""Templates of the common families: the text is their original's, the mask is the answers'."""

from __future__ import annotations

from pathlib import Path

import pytest
import trl

from align.chat.render import Chat
from align.config.data import DataConfig
from align.config.grpo import GrpoConfig
from align.config.sft import SftConfig
from align.dataset.chat import encode_conversation, render_prompt, set_template
from align.dataset.conversations import load_conversations
from align.dataset.prompts import load_prompts
from align.dataset.training_template import training_template
from align.errors import DataError, ModelError

PUBLISHED = Path(trl.__file__).parent / "chat_templates"
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
SYSTEM = {"role": "system", "content": "Count."}
TALK = [
    {"role": "user", "content": "1 + 2?"},
    {"role": "assistant", "content": "3"},
    {"role": "user", "content": "4?"},
    {"role": "assistant", "content": "Answer: 5"},
]
THOUGHT = [
    TALK[0],
    {"role": "assistant", "content": "3", "reasoning_content": "One more."},
    TALK[2],
    {"role": "assistant", "content": "5", "reasoning_content": "And one."},
]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"x": 1}}}
CALLS = [
    TALK[0],
    {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": "3"},
    {"role": "tool", "content": "3"},
    {"role": "assistant", "content": "3"},
]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


def source(name):
    return (PUBLISHED / f"{name}.jinja").read_text(encoding="utf-8")


@pytest.fixture
def family(byte_tokenizer):
    """A byte tokenizer with the family's markers and its published template."""

    def build(name):
        if name.startswith("deepseek"):
            made = byte_tokenizer(
                [BOS, EOS],
                ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"],
                bos_token=BOS,
                eos_token=EOS,
            )
        elif name.startswith("llama3"):
            marks = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
            made = byte_tokenizer(marks, bos_token=marks[0], eos_token=marks[-1])
        else:
            made = byte_tokenizer(
                ["<|im_start|>", "<|im_end|>"], ["<think>", "</think>"], eos_token="<|im_end|>"
            )
        made.chat_template = source(name)
        return made

    return build


def trained(tokenizer, messages, pieces, tools=None):
    template = training_template(tokenizer)
    ids, mask = encode_conversation(tokenizer, messages, tools=tools, template=template)
    return [text for text, bit in pieces(tokenizer, ids, mask) if bit]


@pytest.mark.parametrize(
    ("name", "given", "answers"),
    [
        ("llama3", None, ["3<|eot_id|>", "Answer: 5<|eot_id|>"]),
        ("llama3", "llama3", ["3<|eot_id|>", "Answer: 5<|eot_id|>"]),
        ("qwen2_5", None, ["3<|im_end|>", "Answer: 5<|im_end|>"]),
        (
            "qwen2_5",
            "qwen2_5",
            ["3<|im_end|>", "Answer: 5<|im_end|>"],
        ),  # its markers enclose a line feed more
        ("qwen3_instruct_2507", None, ["3<|im_end|>", "Answer: 5<|im_end|>"]),
        ("qwen3", None, ["<think>\n\n</think>\n\n3<|im_end|>", "<think>\n\n</think>\n\nAnswer: 5<|im_end|>"]),
        (
            "qwen3",
            "qwen3",
            ["<think>\n\n</think>\n\n3<|im_end|>", "<think>\n\n</think>\n\nAnswer: 5<|im_end|>"],
        ),
        ("qwen3", "chatml", ["3<|im_end|>", "Answer: 5<|im_end|>"]),
        ("deepseekv3", None, [f"\n</think>\n\n3{EOS}", f"\n</think>\n\nAnswer: 5{EOS}"]),
        ("deepseekv3", "deepseekv3", [f"\n</think>\n\n3{EOS}", f"\n</think>\n\nAnswer: 5{EOS}"]),
        ("deepseek_r1_distill", None, [f"\n</think>\n\n3{EOS}", f"\n</think>\n\nAnswer: 5{EOS}"]),
        ("deepseekv3", "deepseek_r1", [f"\n</think>\n\n3{EOS}", f"\n</think>\n\nAnswer: 5{EOS}"]),
        ("deepseekv3", "deepseek_v3", [f"3{EOS}", f"Answer: 5{EOS}"]),
    ],
)
def test_what_is_trained(family, pieces, name, given, answers):
    tokenizer = family(name)
    set_template(tokenizer, given)
    before = tokenizer.chat_template
    assert trained(tokenizer, TALK, pieces) == answers
    assert trained(tokenizer, [SYSTEM, *TALK], pieces) == answers
    assert tokenizer.chat_template == before


@pytest.mark.parametrize("name", ["llama3", "qwen2_5", "qwen3_instruct_2507"])
def test_the_text_is_the_originals(family, name):
    tokenizer = family(name)
    own = Chat(tokenizer, [SYSTEM, *TALK])
    for template in (training_template(tokenizer).source, source(f"{name}_training")):
        chat = Chat(tokenizer, [SYSTEM, *TALK], template=template)
        assert chat.text() == own.text()
        assert chat.text(4, prompt=True) == own.text(4, prompt=True)


def test_chatml_is_smollm2s(smollm2):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    own = encode_conversation(tokenizer, [SYSTEM, *TALK])
    assert training_template(tokenizer).source == tokenizer.chat_template
    set_template(tokenizer, "chatml")
    assert encode_conversation(tokenizer, [SYSTEM, *TALK], template=training_template(tokenizer)) == own


def test_qwen3_keeps_earlier_reasoning_for_training_alone(family, pieces):
    tokenizer = family("qwen3")
    assert trained(tokenizer, THOUGHT, pieces) == [
        "<think>\nOne more.\n</think>\n\n3<|im_end|>",
        "<think>\nAnd one.\n</think>\n\n5<|im_end|>",
    ]
    one = Chat(tokenizer, THOUGHT[:2]).text()
    assert one == Chat(tokenizer, THOUGHT[:2], template=training_template(tokenizer).source).text()
    asked = tokenizer.decode(render_prompt(tokenizer, THOUGHT[:3]))
    assert "One more." not in asked  # as published
    assert asked.endswith("<|im_start|>user\n4?<|im_end|>\n<|im_start|>assistant\n")
    # Without its twin, several turns cannot be told apart.
    with pytest.raises(ModelError, match="renders turn 2 differently on its own"):
        encode_conversation(tokenizer, THOUGHT)


def test_r1_from_both_forms_of_reasoning(family, pieces):
    tokenizer = family("deepseekv3")
    inline = [
        TALK[0],
        {"role": "assistant", "content": "<think>\nOne more.\n</think>\n\n3"},
        TALK[2],
        {"role": "assistant", "content": "And one.</think>5"},
    ]
    expected = [f"One more.\n</think>\n\n3{EOS}", f"And one.\n</think>\n\n5{EOS}"]
    assert trained(tokenizer, THOUGHT, pieces) == trained(tokenizer, inline, pieces) == expected
    template = training_template(tokenizer).source
    for turns in (1, 3):  # each answer goes on from what the published template asks with
        asked = Chat(tokenizer, [SYSTEM, *TALK][: turns + 1]).text(prompt=True)
        assert asked.endswith("<｜Assistant｜><think>\n")
        assert (
            Chat(tokenizer, [SYSTEM, *THOUGHT], template=template).text().count("<｜Assistant｜><think>\n")
            == 2
        )
    first = Chat(tokenizer, THOUGHT, template=template)
    assert first.text().startswith(Chat(tokenizer, THOUGHT[:1]).text(prompt=True))
    without = (
        first.text()
        .replace("<think>\nOne more.\n</think>\n\n", "")
        .replace("<think>\nAnd one.\n</think>\n\n", "")
    )
    assert without == Chat(tokenizer, THOUGHT).text()


def test_v3_is_the_published_text_without_its_open_reasoning(family, pieces):
    tokenizer = family("deepseekv3")
    published = source("deepseekv3")
    set_template(tokenizer, "deepseek_v3")
    for talk in (TALK, [SYSTEM, *TALK], CALLS, [*CALLS, *TALK]):
        assert Chat(tokenizer, talk).text() == Chat(tokenizer, talk, template=published).text()
    for turns in (1, 3):
        own, theirs = (Chat(tokenizer, TALK[:turns], template=each) for each in (None, published))
        assert own.text(prompt=True) + "<think>\n" == theirs.text(prompt=True)
    assert Chat(tokenizer, CALLS[:4]).text(prompt=True) == Chat(
        tokenizer, CALLS[:4], template=published
    ).text(prompt=True)
    calls, answer = trained(tokenizer, CALLS, pieces)
    assert calls.startswith("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n")
    assert calls.endswith(f'{{"x": 1}}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>{EOS}')
    assert answer == f"3{EOS}"


def test_calls_are_trained_and_results_are_not(family, pieces):
    tokenizer = family("qwen3")
    call, answer = trained(tokenizer, CALLS, pieces, TOOLS)
    assert (
        call
        == "<think>\n\n</think>\n\n"
        + "\n".join(['<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call>'] * 2)
        + "<|im_end|>"
    )
    assert answer == "<think>\n\n</think>\n\n3<|im_end|>"


def test_the_quickstarts_own_template_stays(tokenizer):
    set_template(tokenizer, "deepseek_v2")
    found = training_template(tokenizer)
    assert (found.source, found.asks, found.overlap) == (tokenizer.chat_template, "Assistant:", 0)


def test_an_answer_must_begin_where_the_policy_is_asked(tokenizer):
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ 'U:' + m['content'] }}"
        "{% else %}{{ 'A' + (':' if 'no colon' not in m['content'] else ';') }}"
        "{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'A:' }}{% endif %}"
    )
    template = training_template(tokenizer)
    encode_conversation(tokenizer, TALK, template=template)
    talk = [*TALK[:3], {"role": "assistant", "content": "no colon"}]
    with pytest.raises(ModelError, match="turn 4 does not begin with 'A:'"):
        encode_conversation(tokenizer, talk, template=template)


# Through the loaders


@pytest.fixture
def load(write):
    def call(tokenizer, rows, **part):
        data = DataConfig(path=write("a.jsonl", rows), parts={"a": part})
        return load_conversations(data, tokenizer, SftConfig(max_length=4096), seed=0, file="r.yaml")

    return call


def texts(tokenizer, row, pieces):
    return [text for text, bit in pieces(tokenizer, row["input_ids"], row["assistant_masks"]) if bit]


@pytest.mark.parametrize("key", ["weight", "loss", "train"])
def test_a_turn_of_weight_0_is_not_trained(family, load, pieces, key):
    for name, end in (
        ("qwen2_5", "<|im_end|>"),
        ("llama3", "<|eot_id|>"),
        ("qwen2_5_training", "<|im_end|>"),
    ):
        tokenizer = family(name)
        silent = [TALK[0], {**TALK[1], key: 0}, TALK[2], {**TALK[3], key: 1}]
        found = load(tokenizer, [{"messages": silent}, {"messages": TALK}])
        assert texts(tokenizer, found.rows[0], pieces) == [f"Answer: 5{end}"]
        assert texts(tokenizer, found.rows[1], pieces) == [f"3{end}", f"Answer: 5{end}"]
        assert found.rows[0]["input_ids"] == found.rows[1]["input_ids"]
    with pytest.raises(DataError, match="row a/0: no turn of the conversation is to be trained"):
        load(tokenizer, [{"messages": [TALK[0], {**TALK[1], key: 0}]}])


@pytest.mark.parametrize(
    ("extra", "turn", "message"),
    [
        ({"reasoning_content": "r"}, 1, "row a/1: turn 2 has reasoning_content"),
        ({"tool_calls": [CALL]}, 1, "row a/1: turn 2 has tool_calls"),
        ({"name": "Ann"}, 0, "row a/1: turn 1 has name"),
    ],
)
def test_what_the_template_does_not_write_is_refused(family, load, extra, turn, message):
    tokenizer = family("llama3")
    talk = [{**each, **extra} if place == turn else each for place, each in enumerate(TALK)]
    with pytest.raises(DataError, match=message) as caught:
        load(tokenizer, [{"messages": TALK}, {"messages": talk}])
    assert (caught.value.file, caught.value.key) == ("r.yaml", "data.parts.a")
    assert "keep('role', 'content')" in caught.value.remedy
    columns = {"messages": "messages | keep('role', 'content')"}
    assert len(load(tokenizer, [{"messages": talk}], columns=columns).rows) == 1


def test_tools_reach_the_template_or_are_refused(family, load, pieces):
    tokenizer = family("qwen3")
    found = load(tokenizer, [{"messages": CALLS, "tools": TOOLS}, {"messages": TALK, "tools": None}])
    written = tokenizer.decode(found.rows[0]["input_ids"])
    assert '<tools>\n{"type": "function", "function": {"name": "add", "parameters": {}}}\n</tools>' in written
    with pytest.raises(DataError, match="row a/0: the row has tools, which the chat template does not write"):
        load(family("llama3"), [{"messages": TALK, "tools": TOOLS}])
    assert load(family("llama3"), [{"messages": TALK, "tools": TOOLS}], columns={"tools": "none"})
    with pytest.raises(ModelError, match="row a/0: turn 3 is a tool's, and the chat template does not know"):
        load(family("llama3"), [{"messages": CALLS}])


def test_functions_reach_the_template_or_are_refused(family, load):
    tokenizer = family("qwen3")
    function = {"name": "add", "description": "Adds.", "parameters": {}}
    sharegpt = [{"from": "human", "value": "1 + 2?"}, {"from": "gpt", "value": "3"}]
    found = load(tokenizer, [{"conversations": sharegpt, "functions": [function]}])
    assert '"name": "add", "description": "Adds."' in tokenizer.decode(found.rows[0]["input_ids"])
    with pytest.raises(DataError, match="row a/0: the row has functions, which the chat template") as caught:
        load(family("llama3"), [{"conversations": sharegpt, "functions": [function]}])
    assert "columns: {functions: none}" in caught.value.remedy


def test_a_remedy_keeps_the_keys_that_the_row_has(family, load):
    thinking = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "reasoning": "r"}]
    with pytest.raises(DataError, match="turn 2 has reasoning_content") as caught:
        load(family("llama3"), [{"conversations": thinking}])
    assert "columns: {conversations: \"conversations | keep('from', 'value')\"}" in caught.value.remedy
    with pytest.raises(DataError, match="turn 2 has reasoning_content") as caught:
        load(family("llama3"), [{"talk": thinking}], columns={"messages": "talk[:2]"})
    assert "columns: {messages: \"(talk[:2]) | keep('from', 'value')\"}" in caught.value.remedy


def test_reasoning_inside_a_text_is_not_lost(family, load):
    tokenizer = family("deepseekv3")
    tokenizer.chat_template = source("deepseekv3").replace("<think>\\n'}}{% endif %}", "'}}{% endif %}")
    thinking = [TALK[0], {"role": "assistant", "content": "<think>\nOne.\n</think>\n\n3"}]
    load(tokenizer, [{"messages": TALK}])
    with pytest.raises(DataError, match="row a/0: turn 2 has reasoning inside <think>"):
        load(tokenizer, [{"messages": thinking}])


@pytest.mark.parametrize("name", ["deepseekv3", "deepseek_r1_distill", "qwen3", "qwen3_training"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"content": "<think>\nOne.\n</think>\n\n3", "reasoning_content": "Two."}, "a <think> block in its"),
        ({"content": "One.</think>3", "reasoning": "Two."}, "a <think> block in its content"),
        ({"content": "<think>One.", "thinking": "Two."}, "a <think> block in its content"),
        ({"content": "<think>\nOne."}, "a <think> that is not closed"),
        ({"content": "<think>One.</think>3<think>Two."}, "a <think> that is not closed"),
        ({"content": "Well. <think>1 + 2?</think>3"}, "says something before its <think>"),
        ({"content": "3", "reasoning_content": "<think>One.</think>"}, "inside its reasoning_content"),
    ],
)  # fmt: skip
def test_reasoning_twice_or_open_is_refused(family, load, name, answer, message):
    tokenizer = family(name)
    bad = [TALK[0], {"role": "assistant", **answer}]
    good = [TALK[0], {"role": "assistant", "content": "<think>\nOne.\n</think>\n\n3", "reasoning": ""}]
    with pytest.raises(DataError, match=f"row a/1: turn 2 .*{message}") as caught:
        load(tokenizer, [{"messages": good}, {"messages": bad}])
    assert caught.value.remedy


def test_templates_that_write_texts_as_they_are_take_open_blocks(family, load):
    open_one = [TALK[0], {"role": "assistant", "content": "<think>One."}]
    assert len(load(family("llama3"), [{"messages": open_one}]).rows) == 1


def test_earlier_reasoning_may_go_in_a_prompt(family, write):
    path = write("a.jsonl", [{"prompt": THOUGHT[:3]}] * 4)
    tokenizer = family("qwen3")
    assert len(load_prompts(DataConfig(path=path), tokenizer, GrpoConfig(prompts_per_step=4))) == 4
    with pytest.raises(DataError, match="row train/0: turn 2 has reasoning_content"):
        load_prompts(DataConfig(path=path), family("llama3"), GrpoConfig(prompts_per_step=4))


@pytest.mark.parametrize("name", ["qwen3", "deepseekv3", "deepseek_r1_distill"])
def test_prompts_take_templates_made_for_asking(family, write, name):
    tokenizer = family(name)
    set_template(tokenizer)
    path = write("a.jsonl", [{"prompt": TALK[:3]}] * 4)
    prompts = load_prompts(DataConfig(path=path), tokenizer, GrpoConfig(prompts_per_step=4))
    assert tokenizer.decode(prompts[0].token_ids) == Chat(tokenizer, TALK[:3]).text(prompt=True)


def test_a_developer_is_the_system_where_the_template_knows_none(family, write):
    tokenizer = family("qwen2_5")
    developer = [{"role": "developer", "content": "Count."}, *TALK]
    assert Chat(tokenizer, developer).text() == Chat(tokenizer, [SYSTEM, *TALK]).text()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}{% if m['role'] == 'developer' %}!{% endif %}{% endfor %}"
    )
    assert Chat(tokenizer, developer[:2]).text() == "developer!user"


def test_templates_that_leave_out_text(tokenizer):
    tokenizer.chat_template = source("smolvlm")
    with pytest.raises(ModelError, match="leaves out the text of messages"):
        set_template(tokenizer)
