"""``align chat``: talk to a model in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from align.cli.common import console, errors, show_error
from align.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HELP = "/reset forgets the conversation, /system TEXT sets the system message, /quit leaves."


def chat(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL", help="Run directory, model directory or hub id.", show_default=False
        ),
    ],
    system: Annotated[str | None, typer.Option(help="System message.", show_default=False)] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Nucleus sampling.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling.")] = 0,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run Python code that comes with the model.")
    ] = False,
) -> None:
    """Talk to a model in the terminal.

    Answers appear as they are written; Ctrl-C stops one, Ctrl-D leaves.
    Lines from a pipe are the questions of one conversation.

    \b
    [bold]Examples[/]
      align chat runs/quickstart/grpo
      align chat runs/quickstart/grpo --system "Answer briefly."
      echo "What is 12 + 30?" | align chat runs/quickstart/grpo
    """
    from align.config.policy import PolicyConfig
    from align.dataset.chat import set_template
    from align.model.files.load import load_model, load_tokenizer

    policy = PolicyConfig(path=model, dtype=_dtype(model), trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(policy)
    set_template(tokenizer)
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_model(policy, seed=seed, device=device).eval()
    loaded.config.use_cache = True
    torch.manual_seed(seed)
    conversation = Conversation(loaded, tokenizer, max_new_tokens, temperature, top_p, system)
    if sys.stdin.isatty():
        errors.print(HELP)
    for line in _lines():
        if line in {"/quit", "/exit"}:
            break
        if line == "/reset":
            conversation.reset()
        elif line.partition(" ")[0] == "/system":
            conversation.reset(line.partition(" ")[2].strip() or None)
        elif line.startswith("/"):
            errors.print(HELP)
        elif line:
            try:
                conversation.ask(line)
            except ModelError as error:
                if not sys.stdin.isatty():
                    raise
                show_error(error)


def _dtype(model: str) -> Any:
    """The type that the weights were saved in, where the model is at hand."""
    import json

    from align.model.files.load import resolve_model

    file = Path(resolve_model(model)) / "config.json"
    saved = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return "float32" if saved.get("dtype", saved.get("torch_dtype")) == "float32" else "bfloat16"


def _lines() -> Iterator[str]:
    """Lines of standard input; asked for with a prompt on a terminal."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin)
        return
    import readline  # noqa: F401 - gives input() its history

    while True:
        try:
            yield input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return


class Conversation:
    """The turns so far, and a model that answers the last one aloud."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        system: str | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_new_tokens, self.temperature, self.top_p = max_new_tokens, temperature, top_p
        self.system = system
        self.messages: list[dict[str, str]] = []
        self.reset(system)

    def reset(self, system: str | None = None) -> None:
        """Forget all turns; a system message given here replaces the one before."""
        self.system = system or self.system
        self.messages = [{"role": "system", "content": self.system}] if self.system else []

    def ask(self, text: str) -> str:
        """Write the answer to standard output as it comes, and return it.

        Raises:
            ModelError: the conversation is longer than the model can read.
        """
        import torch
        from transformers import GenerationConfig, TextStreamer

        from align.dataset.chat import render_prompt

        self.messages.append({"role": "user", "content": text})
        ids = render_prompt(self.tokenizer, self.messages)
        room = getattr(self.model.config, "max_position_embeddings", None) or sys.maxsize
        if len(ids) >= room:
            self.messages.pop()
            raise ModelError(
                f"the conversation has {len(ids)} tokens, the model reads {room}",
                remedy="start anew with /reset",
            )
        settings = GenerationConfig(
            max_new_tokens=min(self.max_new_tokens, room - len(ids)),
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            do_sample=self.temperature > 0,
            **(
                {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0} if self.temperature else {}
            ),
        )
        aloud = _Aloud(TextStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True))
        tokens = torch.tensor([ids], device=self.model.device)
        try:
            self.model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                generation_config=settings,
                streamer=aloud,
            )
        except KeyboardInterrupt:  # what was said so far stays part of the conversation
            aloud.end()
        answer = str(self.tokenizer.decode(aloud.ids, skip_special_tokens=True)).strip()
        self.messages.append({"role": "assistant", "content": answer})
        return answer


class _Aloud:
    """A streamer that prints through another and keeps the sampled tokens, should Ctrl-C cut them short."""

    def __init__(self, printer: Any) -> None:
        self.printer = printer
        self.ids: list[int] = []

    def put(self, tokens: Any) -> None:
        if not self.printer.next_tokens_are_prompt:
            self.ids += tokens.flatten().tolist()
        self.printer.put(tokens)

    def end(self) -> None:
        self.printer.end()
