"""A reward model on torch and on vLLM's pooling runner, side by side.

    python benchmarks/scorer.py [--model DIR] [--repeats 7] [--prompts 16] [--group 4] [--threads N]

Both back ends serve the same model as they do in a run: each in its actor, in one bundle, taking turns.
Every repeat scores fresh made-up conversations, first on one, then on the other, so both see the same
machine; G answers share a prompt, as in GRPO. A causal language model gets a made-up head first. Prints
medians of wall seconds and of the actor's CPU seconds (which other load on the machine moves less, above
all with --threads 1), start time, memory, and how far both are from the same model in fp32.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import psutil
import ray
import torch

from align.cluster.placement import cluster
from align.cluster.scorer_actor import ScorerClient
from align.config.run import ClusterConfig
from align.model.score.scorer import ScorerFiles, TorchScorer, open_scorer
from align.reward.contract import Sample

TEXT = "the sum of two numbers is what we want to know so add them and then say how it was done"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="models/smollm2-135m-instruct")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--prompt-words", type=int, default=80)
    parser.add_argument("--answer-words", type=int, default=120)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(open_scorer(classifier(args.model, Path(folder))), args)


def classifier(model: str, folder: Path) -> str:
    """The model as it is, or with a made-up head whose scores have a deviation of about one."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    config = AutoConfig.from_pretrained(model)
    if config.architectures[0].endswith("ForSequenceClassification"):
        return model
    config.num_labels = 1
    made = AutoModelForSequenceClassification.from_pretrained(model, config=config, dtype=torch.bfloat16)
    torch.manual_seed(0)
    torch.nn.init.normal_(made.score.weight, std=config.hidden_size**-0.5)
    made.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)


def conversations(args: argparse.Namespace, seed: int) -> list[Sample]:
    """``prompts`` × ``group`` samples; lengths vary from half to one and a half of the mean."""
    source = random.Random(seed)
    vocabulary = TEXT.split()

    def text(words: int) -> str:
        return " ".join(source.choices(vocabulary, k=source.randint(words // 2, words + words // 2)))

    prompts = [text(args.prompt_words) for _ in range(args.prompts)]
    return [
        Sample(prompt=({"role": "user", "content": prompt},), completion=text(args.answer_words))
        for prompt in prompts
        for _ in range(args.group)
    ]


def process_of(client: ScorerClient) -> psutil.Process:
    """The actor's process."""
    return psutil.Process(ray.get(client.actor.__ray_call__.remote(lambda _: os.getpid())))


def cpu_seconds(process: psutil.Process) -> float:
    """What a process has computed so far, all threads together."""
    times = process.cpu_times()
    return times.user + times.system


def measure(files: ScorerFiles, args: argparse.Namespace) -> None:
    """Start both, let them take turns, print."""
    starts: dict[str, float] = {}
    clients: dict[str, ScorerClient] = {}
    wall: dict[str, list[float]] = {"torch": [], "vllm": []}
    work: dict[str, list[float]] = {"torch": [], "vllm": []}
    counts = []
    with cluster(ClusterConfig(device="cpu", threads=args.threads)) as placement:
        for name in ("torch", "vllm"):
            begin = time.perf_counter()
            clients[name] = ScorerClient.start(placement.scorer(0), name, files.source, backend=name)
            starts[name] = time.perf_counter() - begin
        processes = {name: process_of(client) for name, client in clients.items()}
        resident = {name: process.memory_info().rss / 2**30 for name, process in processes.items()}
        for repeat in range(args.repeats + 1):
            samples = conversations(args, repeat)
            counts.append(sum(len(files.encode(each.prompt, each.completion)) for each in samples))
            scores = {}
            for name in clients if repeat % 2 else reversed(clients):
                before, begin = cpu_seconds(processes[name]), time.perf_counter()
                scores[name] = [outcome.value or 0.0 for outcome in clients[name](samples)]
                wall[name].append(time.perf_counter() - begin)
                work[name].append(cpu_seconds(processes[name]) - before)
        peak = {name: client.memory_gib() for name, client in clients.items()}
    exact = TorchScorer(files, device="cpu", dtype="float32")
    rows = [files.encode(sample.prompt, sample.completion) for sample in samples]
    expected = exact.score(rows, [str(sample.prompt) for sample in samples])
    tokens = statistics.median(counts[1:])  # the first repeat warms up
    print(f"{args.model}: {len(samples)} conversations of {tokens / len(samples):.0f} tokens, bf16")
    print(f"medians of {args.repeats}; deviation of the scores {statistics.pstdev(expected):.3f}\n")
    head = f"{'wall s':>9}{'CPU s':>9}{'tokens/s':>10}{'start, s':>10}{'idle, GiB':>11}{'peak, GiB':>11}"
    print(f"{'':<8}{head}{'mean |Δ| to fp32':>18}")
    for name in clients:
        gap = statistics.fmean(abs(a - b) for a, b in zip(scores[name], expected, strict=True))
        seconds, cpu = statistics.median(wall[name][1:]), statistics.median(work[name][1:])
        print(
            f"{name:<8}{seconds:>9.2f}{cpu:>9.2f}{tokens / seconds:>10.0f}{starts[name]:>10.1f}"
            f"{resident[name]:>11.2f}{peak[name]:>11.2f}{gap:>18.4f}"
        )
    for label, column in (("wall", wall), ("CPU", work)):
        ratio = statistics.median(a / b for a, b in zip(column["torch"][1:], column["vllm"][1:], strict=True))
        print(f"torch / vLLM, {label} seconds, per repeat, median: {ratio:.2f}")


if __name__ == "__main__":
    main()
