import json
import os
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import align.model.logprobs as module
from align.model.attention.shared_prefix import use_shared_prefix
from align.model.logprobs import completion_logprobs, token_logprobs

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


MEASURE = """
import json, sys
import torch
from align.model.logprobs import token_logprobs

def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024

def growth(work):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak is what is resident now
    before = status("VmRSS:")
    work()
    return status("VmHWM:") - before

tokens, vocabulary, width = 2000, 102_400, 16
hidden = torch.randn(tokens, width, dtype=torch.bfloat16, requires_grad=True)
weight = torch.randn(vocabulary, width, dtype=torch.bfloat16, requires_grad=True)
targets = torch.randint(vocabulary, (tokens,))

def ours(count):
    found = token_logprobs(hidden[:count], weight, targets[:count])
    found.logprobs_N.sum().backward()

def plainly():
    with torch.no_grad():
        hidden @ weight.T

ours(25)  # compiles, and makes the gradients
print(json.dumps([growth(lambda: ours(600)), growth(lambda: ours(tokens)), growth(plainly)]))
"""
"""MiB by which the peak grows: forward and backward of 600 tokens, whose logits are one chunk (kept for the
backward pass), and of 2,000 tokens; and the logits of these in bf16 alone."""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
def test_a_large_vocabulary_never_has_its_logits_in_memory():
    found = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    one_chunk, several, plain = json.loads(found.stdout)
    whole = 2000 * 102_400 * 2 / 2**20
    assert plain > 0.95 * whole  # the measure sees such a tensor
    assert several < 0.6 * whole  # a chunk is 128 MiB
    assert one_chunk < 0.6 * whole  # its logits become its gradient in place


def test_the_kept_product_serves_one_backward_pass_and_a_second_computes_it_again():
    made = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=made, requires_grad=True) for n in (5, 11))
    logprobs, _, _ = token_logprobs(hidden, weight, torch.tensor([1, 4, 0, 10, 3]))
    first, second = (
        torch.autograd.grad(logprobs.sum(), (hidden, weight), retain_graph=True) for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        assert one.abs().max() > 0.01
        torch.testing.assert_close(one, other)


def test_chunks_change_no_gradient(monkeypatch):
    made = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=made, requires_grad=True) for n in (5, 11))
    found = []
    for rows in (5, 2):
        monkeypatch.setattr(module, "CHUNK_ELEMENTS", 11 * rows)
        logprobs = token_logprobs(hidden, weight, torch.tensor([1, 4, 0, 10, 3])).logprobs_N
        found.append(torch.autograd.grad(logprobs.square().sum(), (hidden, weight)))
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(whole, pieces)
