import multiprocessing

import pytest
import torch

from align.errors import SyncError
from align.sync import arena as arena_module
from align.sync.arena import Arena
from align.sync.manifest import Manifest


def pairs():
    generator = torch.Generator().manual_seed(0)
    yield "a.weight", torch.randn(3, 5, generator=generator)
    yield "b.bias", torch.randn(7, generator=generator)
    yield "c.weight", torch.randn(4, 6, generator=generator).T  # not contiguous


def hosted(dtype=torch.float32):
    parameters = {name: torch.nn.Parameter(tensor.to(dtype).contiguous()) for name, tensor in pairs()}
    arena = Arena(dtype)
    arena.host(parameters.values())
    return arena, parameters


def stream(parameters):
    return [(name, parameter.detach()) for name, parameter in parameters.items()]


def _read_elsewhere(manifest: Manifest, queue) -> None:
    queue.put({name: tensor.float().tolist() for name, tensor in manifest.open()})


def read_elsewhere(manifest: Manifest) -> dict:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    reader = context.Process(target=_read_elsewhere, args=(manifest, queue))
    reader.start()
    found = queue.get(timeout=60)
    reader.join()
    return found


def test_another_process_reads_the_same_values():
    manifest = Arena(torch.bfloat16).publish(pairs(), 3)
    assert (manifest.version, manifest.whole, manifest.nbytes) == (3, True, 2 * (15 + 7 + 24))
    found = read_elsewhere(manifest)
    for name, tensor in pairs():
        assert found[name] == tensor.bfloat16().float().tolist()


def test_hosted_parameters_are_read_where_they_are():
    arena, parameters = hosted()
    for name, tensor in pairs():
        assert torch.equal(parameters[name], tensor)
    arena.publish(stream(parameters), 0)
    places = [parameter.data_ptr() for parameter in parameters.values()]
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(1)  # as an optimiser does
    manifest = arena.publish(stream(parameters), 1)
    assert [parameter.data_ptr() for parameter in parameters.values()] == places
    for (_, before), (_, found) in zip(pairs(), manifest.open(), strict=True):
        torch.testing.assert_close(found, before + 1)
    assert arena._used == 64 + 64 + 128  # nothing was copied to a second place


def test_what_is_not_hosted_gets_a_place_beside_it():
    arena, parameters = hosted()
    merged = torch.full((4, 4), 7.0)
    views = [("a.0", parameters["a.weight"].detach()[:1]), ("b.bias", parameters["b.bias"].detach())]
    for version in range(2):
        manifest = arena.publish([*views, ("merged", merged + version)], version)
        found = dict(manifest.open())
        assert torch.equal(found["a.0"], parameters["a.weight"][:1])
        assert torch.equal(found["merged"], merged + version)
    assert found["a.0"].untyped_storage().data_ptr() == found["merged"].untyped_storage().data_ptr()


def test_a_correction_bias_keeps_its_precision():
    bias = torch.tensor([1.0, 1.001, 1.002, 1.003])  # all one number in bf16
    weight = torch.full((4, 2), 1.001)
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    manifest = Arena(torch.bfloat16).publish([(name, bias), ("gate.weight", weight)], 0)
    read = dict(manifest.open())
    assert torch.equal(read[name], bias)
    assert torch.equal(read["gate.weight"], weight.bfloat16())


def test_publishing_again_reuses_the_block():
    arena = Arena(torch.float32)
    first = arena.publish(pairs(), 0)
    second = arena.publish(((name, tensor + 1) for name, tensor in pairs()), 1)
    assert (first.carrier, first.specs) == (second.carrier, second.specs)
    assert first.digests != second.digests
    for (_, expected), (_, found) in zip(pairs(), second.open(), strict=True):
        torch.testing.assert_close(found, expected + 1)


def test_a_released_block_is_mapped_again():
    manifest = Arena(torch.float32).publish(pairs(), 0)
    first = [tensor.tolist() for _, tensor in manifest.open()]
    assert arena_module._maps
    arena_module.release()
    assert [tensor.tolist() for _, tensor in manifest.open()] == first


def test_only_what_changed():
    arena = Arena(torch.float32)
    arena.publish(pairs(), 0)
    part = [("b.bias", torch.zeros(7))]
    manifest = arena.publish(part, 1, whole=False, required={"b.bias"})
    assert (manifest.names, manifest.nbytes, manifest.whole) == (("b.bias",), 28, False)
    assert [(name, tensor.tolist()) for name, tensor in manifest.open()] == [("b.bias", [0.0] * 7)]


@pytest.mark.parametrize("parts", [0, 1])
def test_a_flipped_bit_is_named(parts):
    arena, parameters = hosted() if parts else (Arena(torch.float32), dict(pairs()))
    manifest = arena.publish(stream(parameters), 0)
    offset = manifest.carrier.offsets[1]
    block = arena._hosted if parts else arena._block
    block[offset + 2] ^= 1
    with pytest.raises(SyncError, match=r"checksum of b\.bias"):
        list(manifest.open())


def test_a_changed_shape_is_refused():
    arena = Arena(torch.float32)
    arena.publish(pairs(), 0)
    with pytest.raises(SyncError, match=r"names or shapes.*b\.bias"):
        arena.publish([*list(pairs())[:1], ("b.bias", torch.zeros(8)), *list(pairs())[2:]], 1)


def test_a_skipped_tensor_is_named():
    arena = Arena(torch.float32)
    arena.publish(pairs(), 0)
    with pytest.raises(SyncError, match=r"missing.*c\.weight"):
        arena.publish(list(pairs())[:2], 1)
    with pytest.raises(SyncError, match=r"missing.*b\.bias"):
        arena.publish(list(pairs())[:1], 1, whole=False, required={"a.weight", "b.bias"})
    with pytest.raises(SyncError, match="same name"):
        arena.publish([*pairs(), *pairs()], 1)


def test_changes_need_a_whole_push_first():
    with pytest.raises(SyncError, match="must be a whole one"):
        Arena(torch.float32).publish(pairs(), 0, whole=False)
