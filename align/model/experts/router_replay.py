"""Router replay: a forward pass of a MoE policy that uses given experts.

Rollout engine and trainer compute the same router with different kernels. Where two experts are
nearly level they pick different ones, and the same token then runs through other weights. Replay
takes the choice from elsewhere and leaves the rest to the trainer: the router's softmax weights of
the given experts, with their gradient.

    rollout   the experts that the engine used, in every pass of the policy
    trainer   those of the trainer's own pass before the first update, in the updates after it
    compare   nothing is replaced, and the experts that the engine used are held against the trainer's

The reference model always routes by itself: what it says must not depend on who sampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from align.errors import EngineError, RecipeError
from align.model.experts.packed_experts import Experts, pack_experts, unpack_experts
from align.model.experts.routers import find_routers, is_moe
from align.model.ranks.layout import Ranks
from align.model.ranks.together import sums
from align.types import TrainBatch

Replay = Literal["off", "compare", "rollout", "trainer"]


def check_replay(config: Any, replay: Replay, *, file: Path | None = None) -> None:
    """Whether ``grpo.replay`` fits a transformers configuration; ``file`` is the recipe's.

    Raises:
        RecipeError: the policy is dense, or its router is none that replay is written for.
    """
    if replay == "off":
        return
    if not is_moe(config):
        raise RecipeError(
            f"{config.model_type} policies have no router to replay",
            file=file,
            key="grpo.replay",
            remedy="leave it off for dense policies",
        )
    if config.model_type != "deepseek_v2":
        raise RecipeError(
            f"replay is written for the router of deepseek_v2, not of {config.model_type}",
            file=file,
            key="grpo.replay",
            remedy="set it to off for this policy",
        )


class RouterReplay:
    """Replaces or records what the routers of a model decide.

    Usage: ``with router.replay(experts): loss = …; loss.backward()``. Under gradient checkpointing
    the layers run again inside ``backward``, so that must happen within ``replay`` too.

    Args:
        model: a transformers DeepSeek-V2 model, or a peft model around one. Copy it before, not
            after: the hooks would be copied with it.
    """

    def __init__(self, model: Any) -> None:
        routers = self._routers = find_routers(model)
        names = {module: name for name, module in model.named_modules()}
        self.layers = [int(names[router].split(".layers.")[1].split(".")[0]) for router in routers]
        """Number of each MoE layer in the model."""
        self.shape = (len(routers), routers[0].top_k)
        """(L, K)."""
        self.experts: int = routers[0].num_experts
        self._given_SLK: Tensor | None = None
        self._used = True
        self._agreeing_L: list[Tensor] = []
        self._recorded: list[Tensor] | None = None
        for place, router in enumerate(routers):
            router.register_forward_hook(partial(self._route, place))

    @property
    def device(self) -> torch.device:
        """Where the routers are."""
        return torch.device(self._routers[0].weight.device)

    @contextmanager
    def replay(self, experts_SLK: Tensor, *, used: bool = True) -> Iterator[list[Tensor]]:
        """Send each token to the given experts.

        Args:
            experts_SLK: int64, in the order in which the model is fed its S tokens.
            used: False leaves each token where the router sends it, and only counts.

        Yields:
            One scalar per MoE layer, there once the forward pass is over: how many tokens the router
            would have sent to the same set of experts.
        """
        self._given_SLK, self._used, self._agreeing_L = experts_SLK, used, []
        try:
            yield self._agreeing_L
        finally:
            self._given_SLK = None

    @contextmanager
    def record(self) -> Iterator[list[Tensor]]:
        """Note what the routers choose: one int64 [S, K] per MoE layer, there after the forward pass."""
        self._recorded = []
        try:
            yield self._recorded
        finally:
            self._recorded = None

    def _route(
        self, place: int, router: Any, inputs: Any, output: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits, _, selected = output
        if self._recorded is not None:
            self._recorded.append(selected)
        if self._given_SLK is None:
            return output
        given = self._given_SLK[:, place]
        if len(self._agreeing_L) == place:  # the second pass of gradient checkpointing is not counted
            same = selected.sort(-1).values == given.sort(-1).values
            self._agreeing_L.append(same.all(-1).sum())
        if not self._used:
            return output
        # All experts, not only those of the groups that device-limited routing would allow.
        weights = logits.softmax(-1, dtype=torch.float32).gather(-1, given)
        return logits, weights * router.routed_scaling_factor, given


class PolicyRouting:
    """``grpo.replay`` for the passes of one policy.

    Usage: each forward pass of a micro-batch inside ``old_pass`` or (with its backward pass)
    ``update_pass``; then ``metrics``.
    """

    def __init__(self, model: Any, replay: Replay) -> None:
        """
        Args:
            model: the policy; its reference, if copied from it, exists already.
            replay: the recipe's choice.

        Raises:
            RecipeError: the model cannot be replayed.
        """
        check_replay(model.config, replay)
        self._replay = replay
        self._router = None if replay == "off" else RouterReplay(model)
        self._own: dict[tuple[str, tuple[int, ...]], Experts] = {}
        self._updated = False
        self._tokens = self._repeated = self._differing = 0
        self._agreeing: list[Tensor] = []

    def old_pass(self, part: TrainBatch) -> AbstractContextManager[Any]:
        """Around the pass that gives π_old of a micro-batch."""
        if self._router is None or self._replay == "compare":
            return nullcontext()
        if self._replay == "trainer":
            return self._record(self._router, part)
        experts, _ = self._pack(self._router, part, part.routed_experts)
        return self._router.replay(experts)

    def update_pass(self, part: TrainBatch, *, counts: bool = True) -> AbstractContextManager[Any]:
        """Around the forward and backward pass of a micro-batch's update.

        Args:
            part: the micro-batch.
            counts: whether it enters the metrics.

        Raises:
            EngineError: the experts of some token are not known.
        """
        self._updated = True
        if self._router is None:
            return nullcontext()
        routed = part.routed_experts
        if self._replay == "trainer":
            if part.old_logprobs is None:  # on-policy: there was no other pass
                return nullcontext()
            routed = self._recorded(part)
        return self._replayed(self._router, part, routed, counts)

    def metrics(self, ranks: Ranks = Ranks()) -> dict[str, float]:  # noqa: B008
        """Of the update passes of all ranks since last asked; empty when nothing was replayed or compared.

        - ``router/agreement_layer_<i>``: share of fed tokens that the policy's own router sends to the
          given set of experts; under replay, where the layers before used the given ones.
        - ``router/agreement``: mean over the layers.
        - ``router/prompt_disagreement``: share of the prompt tokens left out of the packed rows for
          which the engine used other experts than for those kept.
        """
        if self._router is None:
            return {}
        own = [float(agreeing) for agreeing in self._agreeing] or [0.0] * len(self._router.layers)
        counts = sums([self._tokens, self._repeated, self._differing, *own], ranks)
        tokens, repeated, differing, *agreeing = counts
        self._tokens = self._repeated = self._differing = 0
        self._agreeing = []
        if not tokens:
            return {}
        shares = [each / tokens for each in agreeing]
        metrics = {
            f"router/agreement_layer_{layer}": share
            for layer, share in zip(self._router.layers, shares, strict=True)
        }
        metrics["router/agreement"] = sum(shares) / len(shares)
        if self._replay in ("compare", "rollout"):
            metrics["router/prompt_disagreement"] = differing / max(1, repeated)
        return metrics

    @contextmanager
    def _replayed(
        self, router: RouterReplay, part: TrainBatch, routed: Sequence[Experts] | None, counts: bool
    ) -> Iterator[None]:
        experts, differing = self._pack(router, part, routed)
        with router.replay(experts, used=self._replay != "compare") as agreeing:
            yield
        if not counts:
            return
        self._agreeing = [
            new if not self._agreeing else new + self._agreeing[place] for place, new in enumerate(agreeing)
        ]
        self._tokens += len(experts)
        self._differing += differing
        self._repeated += sum(map(len, routed or [])) - len(experts)

    def _pack(
        self, router: RouterReplay, part: TrainBatch, routed: Sequence[Experts] | None
    ) -> tuple[Tensor, int]:
        if routed is None:
            raise EngineError(
                "the rollout engine reported no routed experts for some completion",
                key="grpo.replay",
                remedy="set it to trainer or off",
            )
        experts, differing = pack_experts(part, routed, router.shape, router.experts)
        return torch.from_numpy(experts).to(router.device), differing

    @contextmanager
    def _record(self, router: RouterReplay, part: TrainBatch) -> Iterator[None]:
        if self._updated:  # a new step
            self._own.clear()
            self._updated = False
        with router.record() as selected:
            yield
        packed = torch.stack(selected, 1).to(torch.int16).cpu().numpy()
        self._own |= zip(_keys(part), unpack_experts(part, packed), strict=True)

    def _recorded(self, part: TrainBatch) -> list[Experts]:
        missing = [key for key in _keys(part) if key not in self._own]
        if missing:
            raise EngineError(
                f"a completion of {missing[0][0]!r} is updated without the pass that gives its experts",
                key="grpo.replay",
                remedy="compute old_logprobs of the whole step before its first update",
            )
        return [self._own[key] for key in _keys(part)]


def _keys(part: TrainBatch) -> list[tuple[str, tuple[int, ...]]]:
    """Equal completions of one prompt are routed alike."""
    return [
        (name, tuple(tokens)) for name, tokens in zip(part.prompt_ids, part.completion_tokens, strict=True)
    ]
