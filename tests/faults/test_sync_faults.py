"""Weights that reach the engine wrongly are noticed in the push that brings them.

Each test breaks one thing in a running trainer or engine and must get a SyncError; the push before the
break and the one after its repair must succeed. The tiny policy computes in fp32, and where it says
``side`` in bf16 as well; there only updates that move the policy can be told from rounding.
"""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

from align.cluster.policy_group import PolicyGroup
from align.cluster.rollout_group import RolloutGroup
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.errors import SyncError

MOE = Path(__file__).parents[2] / "recipes/quickstart/policy"
PROBE = [3 + 7 * i % 600 for i in range(48)]


def recipe(model: Path, **policy) -> GrpoRecipe:
    return GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "faults",
            "policy": {"path": str(model), "init": "random", "dtype": "float32", **policy},
            "data": {"path": "none"},
            "rewards": {"terms": {"none": {"function": "none"}}},
            "grpo": {"max_prompt_tokens": 64},
            "rollout": {"max_new_tokens": 16, "kv_cache_gib": 1, "max_num_seqs": 4},
        }
    )


def inside(client, function):
    """Run ``function(actor)`` in the actor's process."""
    return ray.get(client.actors[0].__ray_call__.remote(function))


class Side:
    """A trainer and its way to the engine."""

    def __init__(self, placement, rollout: RolloutGroup, settings: GrpoRecipe) -> None:
        self.policy = PolicyGroup.start(placement, settings, None)
        self.rollout = rollout
        self.sync = WeightSync(self.policy, rollout, settings, PROBE)
        exact = settings.policy.dtype == "float32"
        self.step = 0.02 if exact else 0.1
        self.agrees = 1e-4 if exact else 0.15

    def move(self) -> None:
        """Change what training would change."""

        step = self.step

        def change(actor):
            import torch

            trained = {
                name: parameter
                for name, parameter in actor.policy.model.named_parameters()
                if parameter.requires_grad and "norm" not in name
            }
            if not hasattr(actor, "first"):  # moves start there, or rounding would grow with every push
                actor.first = {name: parameter.detach().clone() for name, parameter in trained.items()}
                actor.moves = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for name, parameter in trained.items():
                    noise = torch.randn(parameter.shape, generator=actor.moves)
                    parameter.copy_(actor.first[name] + step * noise)

        inside(self.policy, change)

    def push(self):
        self.move()
        return self.sync.push()

    @contextmanager
    def broken(self, client, break_it, mend):
        """A push before, the fault, and a push after its repair."""
        assert self.push().probe_mean < self.agrees
        self.move()
        inside(client, break_it)
        try:
            yield
        finally:
            inside(client, mend)
        assert self.push().probe_mean < self.agrees


@pytest.fixture(scope="module")
def placement(placement):
    return placement.with_threads(1)


@pytest.fixture(scope="module")
def engine(placement):
    rollout = RolloutGroup.start(placement, recipe(MOE), str(MOE))
    yield rollout
    ray.kill(rollout.actors[0])


@pytest.fixture(scope="module")
def full(placement, engine):
    side = Side(placement, engine, recipe(MOE))
    yield side
    ray.kill(side.policy.actors[0])


@pytest.fixture(scope="module")
def half(placement):
    settings = recipe(MOE, dtype="bfloat16")
    rollout = RolloutGroup.start(placement, settings, str(MOE))
    side = Side(placement, rollout, settings)
    yield side
    for actor in (side.policy.actors[0], rollout.actors[0]):
        ray.kill(actor)


@pytest.fixture(params=["full", "half"])
def side(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def lora(placement, engine):
    side = Side(placement, engine, recipe(MOE, lora={"rank": 8, "alpha": 16}))
    side.sync.push()
    yield side
    ray.kill(side.policy.actors[0])


@pytest.fixture(scope="module")
def lora_half(placement, half):
    side = Side(placement, half.rollout, recipe(MOE, dtype="bfloat16", lora={"rank": 8, "alpha": 16}))
    yield side
    ray.kill(side.policy.actors[0])


def test_a_push_carries_all_or_what_changed(full, lora):
    assert full.sync.transports == ["shared_memory"]
    first, second = full.sync.push(), full.push()
    assert first.tensors == second.tensors
    assert first.bytes == second.bytes
    whole = first.bytes
    lora.sync._pushed = False  # the engine holds the other policy
    assert lora.sync.push().bytes == whole
    part = lora.push()
    assert part.probe_mean < 1e-4
    # Of each of 3 layers: q, kv_a with its norm, kv_b, o.
    assert part.tensors == 3 * 5
    hidden, heads, latent, rope, nope, value = 128, 4, 512, 64, 32, 32
    attention = hidden * heads * (nope + rope) + hidden * (latent + rope) + latent
    attention += latent * heads * (nope + value) + heads * value * hidden
    assert part.bytes == 3 * 4 * attention < whole / 2


def test_flipped_bit(side):
    side.push()
    (manifest,) = side.policy.publish(99, True)

    def flip(actor):
        from align.sync.arena import _mapped

        block = manifest.carrier
        _mapped(block.path, block.size)[block.offsets[7] + 5] ^= 4

    inside(side.rollout, flip)
    with pytest.raises(SyncError, match=f"checksum of {manifest.names[7]}"):
        side.rollout.load([manifest])
    inside(side.rollout, flip)
    assert side.push().probe_mean < side.agrees


def _skip(which: str):
    def skip(actor):
        plain = actor.policy.weights
        actor.policy.weights = lambda **arguments: (
            pair for pair in plain(**arguments) if pair[0] != f"model.layers.1.self_attn.{which}.weight"
        )

    def mend(actor):
        del actor.policy.weights

    return skip, mend


def test_skipped_tensor(side):
    with (
        side.broken(side.policy, *_skip("o_proj")),
        pytest.raises(SyncError, match=r"missing.*1\.self_attn\.o_proj"),
    ):
        side.sync.push()


def test_skipped_tensor_of_the_adapted(lora):
    lora.sync._pushed = False
    with (
        lora.broken(lora.policy, *_skip("q_proj")),
        pytest.raises(SyncError, match=r"missing.*1\.self_attn\.q_proj"),
    ):
        lora.sync.push()


def test_tensor_that_the_trainer_never_had(full):
    """The first push fixes the names; one that lacks a tensor does not get through either."""
    skip, mend = _skip("kv_b_proj")

    def forget(actor):
        from align.sync.manifest import Catalogue

        skip(actor)
        actor.outlets.senders["shared_memory"].catalogue = Catalogue(
            actor.outlets.senders["shared_memory"].catalogue.dtype
        )

    def mend_all(actor):
        from align.sync.manifest import Catalogue

        mend(actor)
        actor.outlets.senders["shared_memory"].catalogue = Catalogue(
            actor.outlets.senders["shared_memory"].catalogue.dtype
        )

    with (
        full.broken(full.policy, forget, mend_all),
        pytest.raises(SyncError, match=r"no weights for .*kv_b_proj"),
    ):
        full.sync.push()


def test_tensor_lost_on_the_way(side):
    def lose(actor):
        from align.sync.manifest import Manifest

        Manifest.plain = Manifest.open
        Manifest.open = lambda self, rank=0: (pair for pair in self.plain(rank) if "layernorm" not in pair[0])

    def mend(actor):
        from align.sync.manifest import Manifest

        Manifest.open = Manifest.plain

    with side.broken(side.rollout, lose, mend), pytest.raises(SyncError, match="lost on the way"):
        side.sync.push()


def _without(where: str, name: str):
    """Replace a function of the engine by one that does nothing."""

    def disable(actor):
        import importlib

        module, _, owner = where.partition(":")
        place = importlib.import_module(module)
        place = getattr(place, owner) if owner else place
        actor.plain = getattr(place, name)
        setattr(place, name, lambda *arguments, **more: None)

    def mend(actor):
        import importlib

        module, _, owner = where.partition(":")
        place = importlib.import_module(module)
        setattr(getattr(place, owner) if owner else place, name, actor.plain)

    return disable, mend


def _stale_copies(*, exact_check: bool):
    """MLA's absorbed weights become copies (on a CPU vLLM keeps views) that nobody rebuilds."""

    def break_it(actor):
        import torch
        from vllm.model_executor.layers.attention.mla_attention import MLAAttention

        from align.rollout import absorbed

        def copy(worker):
            for layer in worker.model_runner.get_model().modules():
                if isinstance(layer, MLAAttention):
                    layer.W_UV = torch.nn.Parameter(layer.W_UV.clone(), requires_grad=False)
                    layer.W_UK_T = torch.nn.Parameter(layer.W_UK_T.clone(), requires_grad=False)

        actor.engine.llm.collective_rpc(copy)
        actor.plain = MLAAttention.process_weights_after_loading, absorbed.check_absorbed
        MLAAttention.process_weights_after_loading = lambda *arguments: None
        if not exact_check:
            absorbed.check_absorbed = lambda *arguments: None

    def mend(actor):
        from vllm.model_executor.layers.attention.mla_attention import MLAAttention

        from align.rollout import absorbed

        MLAAttention.process_weights_after_loading, absorbed.check_absorbed = actor.plain

    return break_it, mend


def test_stale_mla_copies(side):
    stale = side.broken(side.rollout, *_stale_copies(exact_check=True))
    with stale, pytest.raises(SyncError, match=r"decodes model\.layers\.0\S* with other weights"):
        side.sync.push()


def test_stale_mla_copies_show_when_decoding(full):
    """Prefill does not use them, so the probe prompt agrees."""
    with full.broken(full.rollout, *_stale_copies(exact_check=False)):
        with pytest.raises(SyncError, match="decoding and prefill"):
            full.sync.push()
        trainer = ray.get(full.policy.actors[0].probe.remote(PROBE))
        engine = ray.get(full.rollout.actors[0].score.remote(PROBE))
        full.sync.agreement.check(trainer, engine)


def test_stale_mla_copies_under_lora(lora):
    lora.sync._pushed = False
    stale = lora.broken(lora.rollout, *_stale_copies(exact_check=True))
    with stale, pytest.raises(SyncError, match="with other weights"):
        lora.sync.push()


@pytest.mark.parametrize(
    "fault",
    [
        ("align.rollout.inplace:InPlaceLoader", "load"),  # nothing is taken over
        ("align.rollout.fill", "forget_expert_kernel"),
        ("align.rollout.fill", "_repack"),
    ],
    ids=["everything", "expert kernels", "linear layers"],
)
def test_stale_weights(side, fault):
    with (
        side.broken(side.rollout, *_without(*fault)),
        pytest.raises(SyncError, match="trainer and engine disagree"),
    ):
        side.sync.push()


def _scaled(factor: float):
    """Adapters are merged at another scale than they compute with."""

    def scale(actor):
        import torch

        def merged(weight, layer, dtype):
            (adapter,) = layer.active_adapters
            down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
            return torch.addmm(weight, up.detach(), down.detach(), alpha=factor * layer.scaling[adapter])

        from align.model.files import hf_stream

        actor.plain = hf_stream._merged
        hf_stream._merged = merged

    def mend(actor):
        from align.model.files import hf_stream

        hf_stream._merged = actor.plain

    return scale, mend


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0], ids=["left out", "half the scale", "twice the scale"])
@pytest.mark.parametrize("which", ["lora", "lora_half"])
def test_wrong_lora(request, which, factor):
    side = request.getfixturevalue(which)
    side.sync._pushed = False  # the engine holds the policy of another side
    with (
        side.broken(side.policy, *_scaled(factor)),
        pytest.raises(SyncError, match="trainer and engine disagree"),
    ):
        side.sync.push()


@pytest.fixture(scope="module")
def tied(placement, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tied")
    for file in MOE.glob("*token*"):
        shutil.copy(file, folder)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 640}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": True}
    (folder / "config.json").write_text(
        json.dumps(
            sizes | heads | kind | {"max_position_embeddings": 512, "eos_token_id": 1, "bos_token_id": 0}
        )
    )
    rollout = RolloutGroup.start(placement, recipe(folder), str(folder))
    side = Side(placement, rollout, recipe(folder))
    yield side
    for actor in (side.policy.actors[0], rollout.actors[0]):
        ray.kill(actor)


def test_stale_tied_head(tied):
    fault = (
        "vllm.model_executor.layers.vocab_parallel_embedding:UnquantizedEmbeddingMethod",
        "process_weights_after_loading",
    )
    with (
        tied.broken(tied.rollout, *_without(*fault)),
        pytest.raises(SyncError, match="trainer and engine disagree"),
    ):
        tied.sync.push()
