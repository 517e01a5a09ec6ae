from __future__ import annotations

import pytest
from tokenizers import processors

from align.chat.render import Chat
from align.dataset.chat import encode_conversation, render_prompt, set_template, shipped_templates
from align.dataset.training_template import training_template
from align.errors import ModelError

BOS, EOS = "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"
TALK = [
    {"role": "system", "content": "Count."},
    {"role": "user", "content": "1 + 2?"},
    {"role": "assistant", "content": "3"},
    {"role": "user", "content": "4?"},
    {"role": "assistant", "content": "Answer: 5"},
]
# The published format, piece by piece, with the trained pieces marked.
PIECES = [
    (BOS, 0), ("Count.\n\n", 0), ("User: 1 + 2?\n\n", 0), ("Assistant:", 0), (" 3", 1), (EOS, 1),
    ("User: 4?\n\n", 0), ("Assistant:", 0), (" Answer: 5", 1), (EOS, 1),
]  # fmt: skip
CHATML_OWN = (  # as models ship it: no generation markers, a default system message, a final line feed
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def pieces(tokenizer, ids, mask):
    """Neighbouring tokens with the same mask, as text."""
    out = []
    for token, bit in zip(ids, mask, strict=True):
        if out and out[-1][1] == bit:
            out[-1][0].append(token)
        else:
            out.append(([token], bit))
    return [(tokenizer.decode(tokens), bit) for tokens, bit in out]


@pytest.mark.parametrize("template", ["deepseek_v2", None])
def test_deepseek_v2_is_token_exact(tokenizer, template):
    set_template(tokenizer, template)
    ids, mask = encode_conversation(tokenizer, TALK)
    expected_ids, expected_mask = [], []
    for text, bit in PIECES:
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        expected_ids += tokens
        expected_mask += [bit] * len(tokens)
    assert ids == expected_ids
    assert mask == expected_mask
    assert render_prompt(tokenizer, TALK[:2]) == ids[: mask.index(1)]
    assert render_prompt(tokenizer, TALK[:4]) == ids[: len(ids) - mask[::-1].index(0)]


def test_deepseek_v2_by_hand(tokenizer):
    """Every token of the smallest conversation; the generation prompt ends with the colon."""
    set_template(tokenizer, "deepseek_v2")
    talk = [{"role": "user", "content": "7 + 5?"}, {"role": "assistant", "content": "2 "}]
    ids, mask = encode_conversation(tokenizer, talk)
    texts = [tokenizer.decode([token]) for token in ids]
    # fmt: off
    assert texts == [
        BOS, "User", ":", " ", "7", " + ", "5", "?", "\n", "\n", "Assistant", ":", " ", "2", " ", EOS
    ]
    # fmt: on
    assert mask == [0] * 12 + [1] * 4
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert render_prompt(tokenizer, talk[:1]) == ids[:12]


def test_mask_is_what_transformers_computes(tokenizer):
    set_template(tokenizer, "deepseek_v2")
    theirs = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    assert encode_conversation(tokenizer, TALK) == (theirs["input_ids"], theirs["assistant_masks"])


def test_mask_without_the_space_in_the_offsets(tokenizer):
    """Tokenizers that trim offsets lose the whole mask in transformers, and nothing here."""
    set_template(tokenizer, "deepseek_v2")
    expected = encode_conversation(tokenizer, TALK)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    assert encode_conversation(tokenizer, TALK) == expected


def test_chatml_trains_the_end_token_and_not_the_line_feed_behind_it(chatml_tokenizer):
    set_template(chatml_tokenizer, "chatml")
    ids, mask = encode_conversation(chatml_tokenizer, TALK[:3])
    assert pieces(chatml_tokenizer, ids, mask) == [
        (
            "<|im_start|>system\nCount.<|im_end|>\n"
            "<|im_start|>user\n1 + 2?<|im_end|>\n<|im_start|>assistant\n",
            0,
        ),
        ("3<|im_end|>", 1),
        ("\n", 0),
    ]
    assert render_prompt(chatml_tokenizer, TALK[:2]) == ids[: mask.index(1)]


def test_own_chatml_template_gets_the_mask_by_prefixes(chatml_tokenizer):
    chatml_tokenizer.chat_template = CHATML_OWN
    set_template(chatml_tokenizer)
    ids, mask = encode_conversation(chatml_tokenizer, TALK[1:])
    trained = [text for text, bit in pieces(chatml_tokenizer, ids, mask) if bit]
    assert trained == ["3<|im_end|>", "Answer: 5<|im_end|>"]
    assert chatml_tokenizer.decode(ids).startswith(
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n"
    )
    set_template(chatml_tokenizer, "chatml")
    assert encode_conversation(chatml_tokenizer, TALK)[1].count(1) == mask.count(1)


def test_a_template_file(tokenizer, tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text(
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}"
        "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    set_template(tokenizer, str(file))
    ids, mask = encode_conversation(tokenizer, TALK[1:3])
    assert pieces(tokenizer, ids, mask) == [(f"{BOS}[user]1 + 2?[assistant]", 0), (f"3{EOS}", 1)]


def ready(tokenizer):
    set_template(tokenizer)
    training_template(tokenizer)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "no generation prompt"),
        (  # the space belongs to the answer's first token
            "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% if m['role'] == 'assistant' %}"
            "{{ eos_token }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
            "do not continue those of its prompt",
        ),
        (  # only the last turn is rendered in full
            "{% for m in messages %}{{ m['role'] + ':' }}{% if loop.last %}{{ m['content'] }}{% endif %}"
            "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
            "leaves out the text of messages",
        ),
        (  # never stops
            "{% for m in messages %}{{ m['role'] + ':' }}{{ ' ' + m['content'] }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
            "not with the end-of-sequence token",
        ),
        (  # eos outside the marked text
            "{% for m in messages %}{{ m['role'] + ':' }}{% generation %}{{ ' ' + m['content'] }}"
            "{% endgeneration %}{{ eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
            "do not continue|not with the end-of-sequence token",
        ),
        ("{{ raise_exception('no thanks') }}", "refuses a plain question and its answer .*: no thanks"),
        ("{% if %}", "is not Jinja: line 1"),
    ],
)
def test_unusable_templates(tokenizer, template, message):
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=message) as caught:
        ready(tokenizer)
    assert caught.value.key == "policy.chat_template"
    assert caught.value.remedy


def test_unknown_template_name(tokenizer):
    with pytest.raises(ModelError, match="no such chat template: 'chatlm'") as caught:
        set_template(tokenizer, "chatlm")
    assert all(name in caught.value.remedy for name in ("chatml", "deepseek_v2"))
    assert "llama3" in caught.value.remedy
    assert shipped_templates() == ["chatml", "deepseek_r1", "deepseek_v2", "deepseek_v3"]


def test_chatml_needs_its_tokens(tokenizer):
    with pytest.raises(ModelError, match="never stop"):
        set_template(tokenizer, "chatml")


@pytest.mark.parametrize("name", ["chatml", "deepseek_v2"])
def test_unknown_role(tokenizer, chatml_tokenizer, name):
    chosen = chatml_tokenizer if name == "chatml" else tokenizer
    set_template(chosen, name)
    with pytest.raises(ModelError, match="does not know the role 'tool'"):
        render_prompt(chosen, [{"role": "tool", "content": "x"}])


def test_odd_texts_round_trip(tokenizer):
    set_template(tokenizer, "deepseek_v2")
    content = "  two  spaces\n\n\ttab ｜▁ 你好 🙂 1,234.5\u2028end "
    ids, mask = encode_conversation(
        tokenizer, [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
    )
    assert pieces(tokenizer, ids, mask) == [
        (f"{BOS}User: {content}\n\nAssistant:", 0),
        (f" {content}{EOS}", 1),
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}\n{{ m['content'] }}\n{% endfor", "is not Jinja: line 3: "),
        ("{{ bos_token }}\n{{ messages | shout }}", "is not Jinja: line 2: No filter named 'shout'"),
        ("\n\n{{ nothing.at.all }}", r"refuses a plain question and its answer \(line 3\): 'nothing'"),
        ("{{ raise_exception('Never.') }}", r"a plain question and its answer \(line 1\): Never\."),
    ],
)
def test_a_broken_template_names_its_file_and_line(tokenizer, tmp_path, template, message):
    path = tmp_path / "broken.jinja"
    path.write_text(template)
    with pytest.raises(ModelError, match=message) as caught:
        set_template(tokenizer, str(path))
    assert (caught.value.file, caught.value.key) == (str(path), "policy.chat_template")
    assert caught.value.remedy == "mend the template, or choose another"
    tokenizer.save_pretrained(tmp_path / "saved")
    own = type(tokenizer).from_pretrained(tmp_path / "saved")
    with pytest.raises(ModelError, match=message) as caught:
        set_template(own)
    assert caught.value.file == str(tmp_path / "saved" / "chat_template.jinja")


def test_a_template_that_is_no_text(tokenizer, tmp_path):
    path = tmp_path / "broken.jinja"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="cannot be read") as caught:
        set_template(tokenizer, str(path))
    assert caught.value.file == str(path)


def test_a_template_for_tools_that_is_broken_blames_no_row(tokenizer):
    tokenizer.chat_template = {"default": tokenizer.chat_template or "{{ messages }}", "tool_use": "\n{% for"}
    with pytest.raises(ModelError, match="is not Jinja: line 2"):
        Chat(tokenizer, [{"role": "user", "content": "a"}], tools=[{"name": "f"}]).text()
