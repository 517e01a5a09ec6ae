"""Train the quickstart's tokenizer on the quickstart's texts, into recipes/quickstart/policy/.

    python data/make_tokenizer.py [--out DIR] [--check]

Byte-level BPE with 640 entries. Numbers are cut into one or two digits, and each of 0 … 99 is one
token: the policy is too small to learn spelling and arithmetic in a few minutes. The special tokens
and the chat template are DeepSeek-V2's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
BOS = "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
EOS = "<\uff5cend\u2581of\u2581sentence\uff5c>"
VOCAB_SIZE = 640
MAX_LENGTH = 512

# An operator takes the spaces around it; a word or a run of signs takes the space before it.
# One or two digits stand alone. Nothing but an operator takes the space after it, so the generation prompt
# "Assistant:" is tokenised the same with and without an answer behind it.
SPLIT = r"\d{1,2}| [+*=-] | ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s"

TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ 'Assistant: ' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def texts(folder: Path) -> Iterator[str]:
    """Every conversation and prompt as the template writes it, without special tokens."""
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            messages = row.get("messages") or [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row.get("completion", "")},
            ]
            names = {"user": "User: ", "assistant": "Assistant: ", "system": ""}
            yield "\n\n".join(names[m["role"]] + m["content"] for m in messages)


def train(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True, normalized=False) for text in (BOS, EOS)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    numbers = [str(number) for number in range(10, 100)] * 1000  # frequent enough to become tokens
    tokenizer.train_from_iterator(chain(texts(folder), numbers), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE,
    )


def save(tokenizer: PreTrainedTokenizerFast, out: Path) -> list[str]:
    """Write the tokenizer; the names of its files.

    ``tokenizer_class`` is pinned: from the model type alone transformers may pick a Llama-style
    class, which loses spaces.
    """
    tokenizer.save_pretrained(out)
    config = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    (out / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return sorted(file.name for file in out.iterdir() if file.name != "config.json")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE / "quickstart", help="folder with the texts")
    parser.add_argument("--out", type=Path, default=HERE.parent / "recipes/quickstart/policy")
    parser.add_argument("--check", action="store_true", help="compare with --out, write nothing")
    args = parser.parse_args()
    tokenizer = train(args.data)
    if not args.check:
        print(f"{args.out}: {', '.join(save(tokenizer, args.out))}")
        return 0
    with tempfile.TemporaryDirectory() as made:
        names = save(tokenizer, Path(made))
        differing = [
            name
            for name in names
            if not (args.out / name).is_file()
            or (args.out / name).read_bytes() != (Path(made) / name).read_bytes()
        ]
    print("differs: " + ", ".join(differing) if differing else f"{args.out} is what the script makes")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
