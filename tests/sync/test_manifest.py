import pytest
import torch

from align.sync import manifest as manifest_module
from align.sync.manifest import digest, digests, fold


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("function", [digest, fold])
def test_any_flipped_bit_changes_the_digest(function, dtype):
    tensor = torch.randn(5, 3).to(dtype)
    before = function(tensor)
    data = tensor.view(-1).view(torch.uint8)
    seen = {before}
    for place in range(data.numel()):
        for bit in range(8):
            data[place] ^= 1 << bit
            seen.add(function(tensor))
            data[place] ^= 1 << bit
    assert len(seen) == 1 + 8 * data.numel()
    assert function(tensor) == before


def test_the_folded_digest_depends_on_the_order_and_not_on_where_the_tensor_lies(monkeypatch):
    tensor = torch.randn(1000)
    shifted = torch.zeros(1001 * 4, dtype=torch.uint8)[2:4002].view(torch.uint8)
    shifted.copy_(tensor.view(torch.uint8))
    assert fold(shifted) == fold(tensor) != fold(tensor.flip(0))
    whole = fold(tensor)
    monkeypatch.setattr(manifest_module, "_FOLDED_AT_ONCE", 64)
    assert fold(tensor) == whole


def test_digests_keep_the_order():
    tensors = [torch.full((n,), float(n)) for n in range(1, 9)]
    assert digests(tensors) == tuple(digest(tensor) for tensor in tensors)
