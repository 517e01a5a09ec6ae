"""A real engine on a CPU gives memory back, and is the same engine after wake and push."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from types import SimpleNamespace

import pytest
import ray
import torch

from align.cluster.policy_group import PolicyGroup
from align.cluster.remote import wait
from align.cluster.rollout_group import RolloutGroup
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.errors import EngineError
from align.model.files.load import load_tokenizer
from align.rollout.sleep import GpuSleeper, check_filled, finish_steps, free_kv_cache, free_weights
from align.types import Prompt

CACHE_GIB = 1.0


class Pair:
    """An engine and a trainer that fills it: a MoE wide enough for its weights to be seen."""

    def __init__(self, placement, folder) -> None:
        self.recipe = GrpoRecipe.model_validate(
            {
                "kind": "grpo",
                "name": "sleep",
                "policy": {"path": str(folder), "init": "random", "dtype": "float32"},
                "data": {"path": "none"},
                "rewards": {"terms": {"none": {"function": "none"}}},
                "grpo": {"beta": 0, "max_prompt_tokens": 64},
                "rollout": {"max_new_tokens": 24, "kv_cache_gib": CACHE_GIB},
            }
        )
        self.rollout = RolloutGroup.spawn(placement, self.recipe)
        self.policy = PolicyGroup.start(placement, self.recipe, None)
        self.rollout.open(str(folder))
        tokenizer = load_tokenizer(self.recipe.policy)
        self.prompts = [Prompt(f"p/{i}", (), tokenizer(f"What is {i} + 15?")["input_ids"]) for i in range(4)]
        self.sync = WeightSync(self.policy, self.rollout, self.recipe, [5, 6, 7, 8])

    def push(self) -> int:
        """The published bytes; the engine need not be awake for more than the weights."""
        manifests = self.policy.publish(self.sync.version, True)
        self.rollout.load(manifests)
        return manifests[0].nbytes

    def answers(self) -> list[list[int]]:
        return [each.token_ids for each in self.rollout.answer(self.prompts, 24, 0.0)]

    def fill_cache(self) -> None:
        """As if every block had been used."""
        wait(self.rollout.actors[0].__ray_call__.remote(fill_cache), "engine")

    def resident_gib(self) -> float:
        wait(self.rollout.actors[0].take_peak_gib.remote(), "engine")
        return wait(self.rollout.actors[0].take_peak_gib.remote(), "engine")


def fill_cache(actor) -> None:
    def fill(worker) -> None:
        for each in worker.model_runner.kv_caches:
            each.fill_(1.0)

    actor.engine.llm.collective_rpc(fill)


@pytest.fixture(scope="module")
def pair(placement, tmp_path_factory, repo_root):
    folder = tmp_path_factory.mktemp("wide")
    shutil.copytree(repo_root / "recipes/quickstart/policy", folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 512, "moe_intermediate_size": 512, "intermediate_size": 2048}
    (folder / "config.json").write_text(json.dumps(config))
    made = Pair(placement, folder)
    yield made
    for actor in (made.policy.actors[0], made.rollout.actors[0]):
        ray.kill(actor)


@pytest.fixture(autouse=True)
def _filled(request):
    if "pair" in request.fixturenames:
        request.getfixturevalue("pair").push()


def test_memory_comes_back_and_answers_stay_the_same(pair):
    weights = pair.push() / 2**30
    assert weights > 0.05  # else the resident size could not show it
    before, asleep = pair.answers(), []
    for cache in (CACHE_GIB, 0.0, 0.0):  # used whole, then only the blocks of a few answers
        if cache:
            pair.fill_cache()
        awake = pair.resident_gib()
        pair.rollout.sleep("kv_cache")
        no_cache = pair.resident_gib()
        pair.rollout.sleep("engine")
        asleep.append(pair.resident_gib())
        assert awake - no_cache > 0.9 * cache
        assert no_cache - asleep[-1] > 0.8 * weights
        pair.rollout.wake("engine")
        pair.push()
        pair.rollout.wake("kv_cache")
        assert pair.answers() == before
        # Awake, the allocator's own reserves come and go; a second copy of the weights would show.
        assert pair.resident_gib() < awake - 0.9 * cache + weights
    assert max(later - sooner for sooner, later in pairwise(asleep)) < 0.2 * weights  # nothing is left behind


def test_a_cache_has_no_pages_until_it_is_used_and_none_after_a_push(pair):
    before, fresh = pair.answers(), pair.resident_gib()
    pair.fill_cache()
    assert pair.resident_gib() > fresh + 0.9 * CACHE_GIB
    pair.push()
    assert pair.resident_gib() < fresh + 0.1 * CACHE_GIB
    assert pair.answers() == before


def test_the_cache_alone_sleeps_without_a_push(pair):
    before = pair.answers()
    pair.rollout.sleep("kv_cache")
    pair.rollout.wake("kv_cache")
    assert pair.answers() == before


def test_weights_that_slept_are_not_sampled_from(pair):
    pair.rollout.sleep("engine")
    pair.rollout.wake("engine")
    with pytest.raises(EngineError, match="before new ones came"):
        pair.answers()
    pair.push()
    assert pair.answers()


def test_asking_and_pushing_need_an_engine_that_is_awake(pair):
    pair.rollout.sleep("kv_cache")
    with pytest.raises(EngineError, match="asleep: kv_cache"):
        pair.answers()
    pair.rollout.sleep("engine")
    with pytest.raises(EngineError, match="weights are asleep"):
        pair.push()
    pair.rollout.wake("engine")
    pair.rollout.wake("kv_cache")
    pair.push()
    assert pair.sync.push().probe_max < 1e-3


@pytest.mark.parametrize("part", ["kv_cache", "engine"])
def test_twice_is_an_error(pair, part):
    with pytest.raises(EngineError, match=f"no {part} that is asleep"):
        pair.rollout.wake(part)
    pair.rollout.sleep(part)
    with pytest.raises(EngineError, match=f"no {part} that is awake"):
        pair.rollout.sleep(part)
    pair.rollout.wake(part)


def test_parts_of_others_are_refused(pair):
    with pytest.raises(EngineError, match="no optimizer that is awake"):
        pair.rollout.sleep("optimizer")
    with pytest.raises(EngineError, match="no engine that is awake"):
        pair.policy.sleep("engine")


class Layer(torch.nn.Module):
    """As vLLM's linear layers on a CPU: a closure over packed weights beside the parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(64, 1024))
        self.cpu_linear = torch.nn.functional.linear


def test_freed_pages_read_as_zeros_at_the_same_address():
    layer = Layer()
    view, address = layer.weight.detach()[1:], layer.weight.data_ptr()
    free_weights(layer)
    assert layer.weight.data_ptr() == address
    assert view.count_nonzero() < 2 * 4096 // 4  # whole pages go, the rims stay
    layer.weight.data.fill_(2.0)
    assert (view == 2.0).all()


def test_memory_around_the_freed_pages_is_left_alone():
    block = torch.ones(8 * 4096)
    runner = type("Runner", (), {"kv_caches": [torch.ones(10), torch.ones(0), torch.ones(100_000)]})
    free_kv_cache(runner)
    assert (block == 1).all()
    assert (runner.kv_caches[0] == 1).all()  # smaller than a page
    assert runner.kv_caches[2][10_000:90_000].count_nonzero() == 0


def test_a_layer_that_got_no_weights_is_found():
    model = torch.nn.Sequential(Layer(), Layer())
    check_filled(model)
    free_weights(model)
    model[0].cpu_linear = torch.nn.functional.linear
    with pytest.raises(
        EngineError, match="1 layers of the engine got no weights after it slept, the first is 1"
    ):
        check_filled(model)


def sleep_as_on_a_gpu(actor, prompts):
    """On a real engine; what gives the memory itself away is noted alone, as a CPU engine has no such way."""
    llm = actor.engine.llm
    core = llm.llm_engine.engine_core.engine_core
    before = [each.token_ids for each in actor.answer(prompts, 8, 0.0)]
    left, discarded = core.scheduler.has_requests(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core.model_executor, "discard", discarded.append)
        GpuSleeper(llm).sleep("kv_cache")
        paused = core.is_scheduler_paused()
        llm.wake_up(["scheduling"])
    return left, discarded, paused, before == [each.token_ids for each in actor.answer(prompts, 8, 0.0)]


def test_the_gpus_way_to_sleep_waits_until_the_engine_is_at_rest(pair):
    """vLLM frees no KV cache while its scheduler still knows of requests that have been answered."""
    asked = pair.rollout.actors[0].__ray_call__.remote(sleep_as_on_a_gpu, pair.prompts)
    left, discarded, paused, same = wait(asked, "engine")
    assert left  # else this could not fail
    assert discarded == [("kv_cache",)]
    assert paused
    assert same


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_steps_until_scheduler_and_batches_are_empty(steps):
    """Two are needed under asynchronous scheduling, which CPU engines switch off."""
    left = list(range(steps))
    core = SimpleNamespace(scheduler=SimpleNamespace(has_requests=lambda: len(left) > 1), batch_queue=left)
    engine = SimpleNamespace(engine_core=SimpleNamespace(engine_core=core), step=left.pop)
    finish_steps(SimpleNamespace(llm_engine=engine))
    assert not left


def test_an_engine_that_never_rests_is_an_error():
    core = SimpleNamespace(scheduler=SimpleNamespace(has_requests=lambda: True), batch_queue=[])
    engine = SimpleNamespace(engine_core=SimpleNamespace(engine_core=core), step=lambda: None)
    with pytest.raises(EngineError, match="does not come to rest"):
        finish_steps(SimpleNamespace(llm_engine=engine))
