"""vLLM as a rollout engine: kept warm between steps, weights replaced in place.

The engine runs inside the process that makes it. That process must do nothing else with torch: vLLM
pins threads, reseeds the global generator and owns the default process group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch._dynamo

from align.chat.decode import decoded
from align.config.rollout import RolloutConfig
from align.errors import EngineError
from align.plan.residency import Part
from align.rollout.absorbed import decode_twice
from align.rollout.feed import Feed, Work, closed
from align.rollout.job import Job
from align.rollout.routing_capture import RoutingCapture, capture_arguments
from align.rollout.sampling import greedy_params, group_params, probe_params
from align.rollout.sleep import CpuSleeper, GpuSleeper, Sleeper
from align.rollout.start import cpu_blocks, device_arguments, prepare_environment
from align.rollout.weight_source import WeightSource
from align.rollout.workers import worker_arguments
from align.types import Completion, Group, Prompt


class Engine:
    """One vLLM engine.

    Usage: ``load_weights(source, version)`` whenever the policy changed, then ``sample(...)``. Between
    them ``sleep(part)`` and ``wake(part)`` give the memory of weights and KV cache to others.
    Invariant: every completion says which version of the weights sampled which of its tokens, and none
    is sampled by weights that slept and were not loaded since.
    """

    def __init__(
        self,
        model: str,
        settings: RolloutConfig,
        *,
        dtype: str,
        max_model_len: int,
        seed: int,
        device: str = "cpu",
        tokenizer: str | None = None,
        blank: bool = False,
        sleeps: bool = False,
        routed_experts: bool = False,
        trust_remote_code: bool = False,
        overrides: dict[str, Any] | None = None,
    ) -> None:
        """Start the engine.

        Args:
            model: model directory or hub id.
            settings: sampling and sizing.
            dtype: type of the engine's weights, ``bfloat16`` or ``float32``.
            max_model_len: longest prompt plus completion, tokens.
            seed: run seed; sample seeds derive from it.
            device: ``cpu`` or ``cuda``.
            tokenizer: where the tokenizer is, when not beside the model.
            blank: start without reading weights; :meth:`load_weights` must come first.
            sleeps: prepare for :meth:`sleep`; a CPU engine needs no preparation.
            routed_experts: sampled completions say which experts their tokens were sent to.
            trust_remote_code: run code that comes with the model.
            overrides: keys set on the model's Hugging Face configuration.

        Raises:
            EngineError: vLLM refuses the model or the settings.
            RecipeError: such an engine cannot report routed experts.
        """
        compiled = settings.compiled(device)
        routing = capture_arguments(device, compiled=compiled) if routed_experts else {}
        prepare_environment(settings, device)
        from vllm import LLM

        self.settings = settings
        self.seed = seed
        self.version = 0
        try:
            self.llm = LLM(
                model=model,
                tokenizer=tokenizer or model,
                dtype=dtype,
                max_model_len=max_model_len,
                max_num_seqs=settings.max_num_seqs,
                enforce_eager=not compiled,
                load_format="dummy" if blank else "auto",
                logprobs_mode="processed_logprobs",
                seed=seed % 2**31,
                trust_remote_code=trust_remote_code,
                hf_overrides=overrides or {},
                worker_extension_cls="align.rollout.worker_extension.WeightReceiver",
                disable_log_stats=True,
                enable_sleep_mode=sleeps and device != "cpu",
                **routing,
                **worker_arguments(settings.tensor_parallel),
                **device_arguments(settings, device, max_model_len),
                **(cpu_blocks(model, trust_remote_code) if device == "cpu" else {}),
            )
        except Exception as error:  # vLLM's own errors have no common base with Python's
            reason = str(error).strip().splitlines() or [type(error).__name__]
            remedy = "check rollout.* against the model and the memory of the machine"
            if isinstance(error, torch._dynamo.exc.TorchDynamoException):  # its last lines are for developers
                reason, remedy = reason[:1], "set rollout.compile=false, or install a C++ compiler (g++)"
            raise EngineError(f"vLLM could not start: {reason[-1]}", file=model, remedy=remedy) from error
        self.tokenizer: Any = self.llm.get_tokenizer()
        self._requests = 0
        self._routing = RoutingCapture(self.llm, device) if routed_experts else None
        self._filled = True
        self._asleep: set[Part] = set()
        self._sleeper: Sleeper = CpuSleeper(self.llm) if device == "cpu" else GpuSleeper(self.llm)
        self._sleeper.forget_cache()

    def sample(
        self, prompts: Sequence[Prompt], group_size: int, step: int, carried: Sequence[Group] = ()
    ) -> Iterator[Group]:
        """G completions per prompt, each with a seed of its own; groups as they end.

        Args:
            prompts: tokenised prompts.
            group_size: G.
            step: enters the seeds, so that the same prompt differs between steps.
            carried: groups of other prompts that an earlier call left unfinished. Their cut completions go
                on from prompt and tokens so far; the others stay.
        """
        return self.serve(closed([*carried, *prompts]), group_size, step)

    def serve(self, feed: Feed, group_size: int, step: int) -> Iterator[Group]:
        """As :meth:`sample`, of prompts and carried groups that may come while others are sampled."""
        pending: dict[str, list[Completion]] = {}

        def jobs(work: Sequence[Work]) -> Iterator[Job]:
            for each in work:
                if isinstance(each, Prompt):
                    pending[each.id] = []
                    yield from (self._job(step, each, index, None) for index in range(group_size))
                else:
                    ended = [one for one in each.completions if one.finish_reason != "cut"]
                    pending[each.prompt.id] = ended
                    cut = [one for one in each.completions if one.finish_reason == "cut"]
                    yield from (self._job(step, each.prompt, one.sample_index, one) for one in cut)

        def more(wait: bool) -> Iterator[Job] | None:
            work = feed.take(wait=wait)
            return None if work is None else jobs(work)

        for completion, prompt in self._run(more, self._routing):
            members = pending[prompt.id]
            members.append(completion)
            if len(members) == group_size:
                del pending[prompt.id]
                yield Group(prompt, sorted(members, key=lambda each: each.sample_index))

    def _job(self, step: int, prompt: Prompt, index: int, begun: Completion | None) -> Job:
        settings, used = self.settings, len(begun.token_ids) if begun else 0
        params = group_params(settings, self.seed, step, prompt.id, index, self._eos, used)
        return Job(prompt, index, params, begun, settings.max_new_tokens if settings.partial_tokens else 0)

    def answer(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, temperature: float = 0.0
    ) -> list[Completion]:
        """One completion per prompt, in order; greedy at temperature 0."""
        jobs = [
            Job(each, 0, greedy_params(max_new_tokens, temperature, self.seed, each.id, self._eos))
            for each in prompts
        ]
        coming = iter([jobs])
        found = {prompt.id: completion for completion, prompt in self._run(lambda wait: next(coming, None))}
        return [found[prompt.id] for prompt in prompts]

    def score(self, token_ids: Sequence[int]) -> list[float]:
        """Log-probability of each token but the first under the engine's weights, in nats."""
        self._check_ready()
        (output,) = self.llm.generate([{"prompt_token_ids": list(token_ids)}], probe_params(), use_tqdm=False)
        rows = output.prompt_logprobs
        assert rows is not None
        return [row[token].logprob for row, token in zip(rows[1:], token_ids[1:], strict=True)]

    def decode_twice(self, token_ids: Sequence[int]) -> tuple[list[float], list[float]]:
        """What decoding says of a few tokens, and what prefill says (``align.rollout.absorbed``)."""
        self._check_ready()
        return decode_twice(self.llm, token_ids)

    @property
    def filled(self) -> bool:
        """It has weights; without, only a whole push can come next."""
        return self._filled

    def load_weights(self, source: WeightSource, version: int) -> None:
        """Replace the weights in place, all or those that changed; cached prefixes are dropped.

        Args:
            source: of a push, or of one bucket of it: all must come, in order, before anything is sampled.
            version: of the policy.

        Raises:
            SyncError: not all of the source's weights came, or not as they were published.
            EngineError: the weights are asleep or requests are running, or the engine refused a tensor and
                must not be used afterwards.
        """
        if "engine" in self._asleep:
            raise EngineError("the engine's weights are asleep", remedy="wake them before the push")
        if source.first and not (self._filled or source.whole):
            raise EngineError("the engine has no weights yet that changes could go into")
        self._filled = False
        try:
            self.llm.collective_rpc("load_policy_weights", args=(source,))
        except EngineError:  # says already what is wrong
            raise
        except Exception as error:  # vLLM raises whatever a loader raises; all of it is fatal here
            raise EngineError(
                f"the engine refused the policy's weights: {error}",
                remedy="trainer and engine must be built from the same config.json",
            ) from error
        if not source.last:
            return
        if not self.llm.reset_prefix_cache():  # blocks of the old weights are in use
            raise EngineError(
                "the engine got new weights while requests were running, and keeps prefixes of the old ones",
                remedy="push weights when nothing is sampled",
            )
        if "kv_cache" not in self._asleep:
            self._sleeper.forget_cache()
        self.version, self._filled = version, True

    def sleep(self, part: Part) -> None:
        """Give memory back: ``kv_cache``, or ``engine``, the weights. What they held is lost.

        Raises:
            EngineError: the part is asleep already or not the engine's, or requests are running.
        """
        if part in self._asleep or part not in ("engine", "kv_cache"):
            raise EngineError(f"the rollout engine has no {part} that is awake, so it cannot sleep")
        # Cached prefixes must not outlive their blocks: they would read as zeros.
        if self.llm.llm_engine.has_unfinished_requests() or not self.llm.reset_prefix_cache():
            raise EngineError("the rollout engine cannot sleep while requests are running")
        self._sleeper.sleep(part)
        self._asleep.add(part)
        self._filled = self._filled and part != "engine"

    def wake(self, part: Part) -> None:
        """Undo :meth:`sleep`; after ``engine`` a :meth:`load_weights` must come.

        Raises:
            EngineError: the part is awake already.
        """
        if part not in self._asleep:
            raise EngineError(f"the rollout engine has no {part} that is asleep, so it cannot wake")
        self._sleeper.wake(part)
        self._asleep.remove(part)

    def _check_ready(self) -> None:
        if self._asleep:
            raise EngineError(
                f"the rollout engine was asked while asleep: {', '.join(sorted(self._asleep))}",
                remedy="ask it inside a stage that uses engine and kv_cache",
            )
        if not self._filled:
            raise EngineError(
                "the rollout engine was asked after its weights slept and before new ones came",
                remedy="push the policy's weights first",
            )

    def _run(
        self, more: Callable[[bool], Iterable[Job] | None], routing: RoutingCapture | None = None
    ) -> Iterator[tuple[Completion, Prompt]]:
        """Run what ``more(wait)`` gives until it gives None; it is told to wait when nothing else runs."""
        self._check_ready()
        engine = self.llm.llm_engine
        running: dict[str, tuple[Job, str]] = {}
        coming = True
        if routing:
            routing.start()
        try:
            while True:
                jobs = more(not running) if coming else ()
                coming = jobs is not None
                for job in jobs or ():
                    self._requests += 1
                    name = str(self._requests)
                    running[name] = job, self._add(name, job)
                if not running:
                    if coming:
                        continue
                    break
                for output in engine.step():
                    if output.finished:
                        job, request = running.pop(output.request_id)
                        (answer,) = output.outputs
                        fed = len(job.fed) + len(answer.token_ids) - 1
                        experts = routing.take(request, answer, fed) if routing else None
                        yield job.completion(answer, self.version, self._decode, experts), job.prompt
        finally:  # an abandoned generator must not leave requests behind
            if running:
                engine.abort_request(list(running))
            if routing:
                routing.stop()

    def _add(self, name: str, job: Job) -> str:
        """Ask for one completion; vLLM's own id of the request."""
        try:
            return self.llm.llm_engine.add_request(name, {"prompt_token_ids": job.fed}, job.params)
        except Exception as error:  # of vLLM's own kinds, which are no ValueErrors
            raise EngineError(
                f"vLLM refuses prompt {job.prompt.id} of {len(job.fed)} tokens: {error}",
                key="grpo.max_prompt_tokens",
                remedy="shorten the prompt, or raise the limits that the recipe sets",
            ) from error

    def _decode(self, tokens: Sequence[int]) -> str:
        return decoded(self.tokenizer, tokens, keep_special=self.settings.keep_special_tokens)

    @property
    def _eos(self) -> int:
        return int(self.tokenizer.eos_token_id)
