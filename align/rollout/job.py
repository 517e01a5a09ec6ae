"""One completion that the engine is asked for, from its first token or from where it was cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from align.types import Completion, FinishReason, Prompt


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked; :meth:`completion` puts the answer together."""

    prompt: Prompt
    index: int
    """The sample's place in its group."""
    params: Any
    """vLLM's ``SamplingParams``."""
    begun: Completion | None = None
    """What earlier steps sampled of it, cut off."""
    limit: int = 0
    """Longest completion: one that runs out of tokens below it is cut. At 0 none is."""

    @property
    def fed(self) -> list[int]:
        """Tokens to start from, [P + T so far]."""
        return [*self.prompt.token_ids, *(self.begun.token_ids if self.begun else ())]

    def completion(
        self, output: Any, version: int, decode: Callable[[Sequence[int]], str], experts: Any
    ) -> Completion:
        """The whole completion: what was begun, and what the engine added.

        Args:
            output: vLLM's ``CompletionOutput``, of the new tokens.
            version: of the weights that sampled them.
            decode: tokens to text without special tokens.
            experts: of every fed token, [P + T - 1, L, K], or None. Tokens fed in earlier steps keep the
                experts of then: with these their log-probabilities were computed.
        """
        new, rows = list(output.token_ids), output.logprobs or []
        logprobs = [row[token].logprob for row, token in zip(rows, new, strict=bool(rows))]
        spans: tuple[tuple[int, int], ...] = ((version, len(new)),)
        tokens, seed = new, self.params.seed or 0
        if self.begun:
            tokens, logprobs = [*self.begun.token_ids, *new], [*self.begun.logprobs, *logprobs]
            spans, seed = joined(self.begun.versions, version, len(new)), self.begun.seed
            if experts is not None and (earlier := self.begun.routed_experts) is not None:
                experts = np.concatenate([earlier, experts[len(earlier) :]])
        reason: FinishReason = "length" if output.finish_reason == "length" else "stop"
        return Completion(
            prompt_id=self.prompt.id,
            sample_index=self.index,
            token_ids=tokens,
            logprobs=logprobs,
            text=decode(tokens),
            finish_reason="cut" if reason == "length" and len(tokens) < self.limit else reason,
            weight_version=spans[0][0],
            seed=seed,
            routed_experts=experts,
            versions=spans,
        )


def joined(spans: tuple[tuple[int, int], ...], version: int, tokens: int) -> tuple[tuple[int, int], ...]:
    """The spans with further tokens at the end; the last span grows when its version wrote them too."""
    last, count = spans[-1]
    return (*spans[:-1], (last, count + tokens)) if last == version else (*spans, (version, tokens))
