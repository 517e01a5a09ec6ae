import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import align.model.logprobs as module
from align.model.logprobs import completion_logprobs
from align.model.shared_prefix import use_shared_prefix

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12]]
COMPLETIONS = [[20, 21], [30, 31, 32, 33, 1], [40]]


def plainly(model, prompt, completion, temperature):
    """One row, no padding, whole logits: the definition."""
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].float() / temperature
    logp = logits.log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    rows = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return torch.stack([logp[r, t] for r, t in zip(rows, completion, strict=True)]), entropy[list(rows)]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [97, 97 * 3, 1 << 25])
def test_padding_and_chunks_change_nothing(tiny_moe, temperature, chunk, monkeypatch):
    use_shared_prefix(tiny_moe)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk)
    out = completion_logprobs(tiny_moe, PROMPTS, COMPLETIONS, temperature=temperature)
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        expected, entropy = plainly(tiny_moe, prompt, completion, temperature)
        torch.testing.assert_close(out.logprobs_BT[row, : len(completion)], expected, atol=2e-5, rtol=0)
        torch.testing.assert_close(out.entropy_BT[row, : len(completion)], entropy, atol=2e-5, rtol=0)
        assert not out.logprobs_BT[row, len(completion) :].any()
    assert out.mask_BT.sum(-1).tolist() == [2, 5, 1]


def test_gradients_equal_the_plain_computation(tiny_moe, monkeypatch):
    use_shared_prefix(tiny_moe)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 97 * 3)
    weights = torch.tensor([0.3, -1.0, 2.0])
    out = completion_logprobs(tiny_moe, PROMPTS, COMPLETIONS, temperature=0.8)
    (out.logprobs_BT.sum(-1) * weights).sum().backward()
    found = {name: p.grad.clone() for name, p in tiny_moe.named_parameters() if p.grad is not None}
    tiny_moe.zero_grad()
    for row, weight in enumerate(weights):
        (plainly(tiny_moe, PROMPTS[row], COMPLETIONS[row], 0.8)[0].sum() * weight).backward()
    assert found.keys() == {name for name, p in tiny_moe.named_parameters() if p.grad is not None}
    for name, parameter in tiny_moe.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_no_tensor_of_tokens_by_vocabulary_is_whole(tiny_moe, monkeypatch):
    use_shared_prefix(tiny_moe)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 97 * 2)
    rows = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.ndim == 2 and result.shape[-1] == 97:
                rows.add(result.shape[0])
            return result

    with Watch():
        completion_logprobs(tiny_moe, PROMPTS, COMPLETIONS).logprobs_BT.sum().backward()
    hidden = tiny_moe.config.hidden_size  # the head's own weight, transposed
    assert max(rows - {hidden}) == 2
