"""Tokens that fit in a KV cache of a given size: MLA's latent against the keys and values of all heads.

    python benchmarks/mla_cache.py [--config recipes/quickstart/policy/config.json] [--gib 1]
        [--dtype bfloat16] [key=value …]

Starts the model of a config.json (fresh weights: only shapes matter here) in vLLM twice, each time in a
process of its own, the second time with VLLM_MLA_DISABLE=1, and reads what each engine reserved. `key=value`
changes the configuration, e.g. DeepSeek-V2-Lite's attention: num_attention_heads=16
num_key_value_heads=16 qk_nope_head_dim=128 v_head_dim=128.

MLA keeps kv_lora_rank + qk_rope_head_dim elements of a token in each layer. Without it vLLM keeps a key and
a value per head, both as wide as a key: 2 · heads · (qk_nope_head_dim + qk_rope_head_dim).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import table

LAYOUTS = ("latent", "heads")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("recipes/quickstart/policy/config.json"))
    parser.add_argument("--gib", type=int, default=1, help="KV cache, GiB (vLLM takes whole ones)")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--model", help=argparse.SUPPRESS)
    args, overrides = parser.parse_known_args()
    if args.model:
        reserved(args)
        return
    config = json.loads(args.config.read_text(encoding="utf-8"))
    config |= {key: json.loads(value) for key, _, value in (each.partition("=") for each in overrides)}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        found = {layout: start(args, folder, layout) for layout in LAYOUTS}
    show(args, config, found)


def start(args: argparse.Namespace, folder: str, layout: str) -> dict[str, Any]:
    """What an engine of its own process reserves."""
    print(f"starting the engine: {layout}", file=sys.stderr, flush=True)
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "VLLM_MLA_DISABLE": str(int(layout == "heads")),
        "VLLM_CPU_KVCACHE_SPACE": str(args.gib),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    command = [sys.executable, __file__, "--model", folder, "--dtype", args.dtype]
    engine = subprocess.run(command, env=environment, capture_output=True, text=True)
    if engine.returncode:
        raise SystemExit(f"{engine.stderr[-3000:]}\nthe engine did not start")
    return json.loads(engine.stdout.splitlines()[-1])


def reserved(args: argparse.Namespace) -> None:
    """Start one engine and print its figures."""
    import torch._dynamo

    torch._dynamo.config.disable = True  # else helpers of the sampler are compiled: seconds, for nothing
    from vllm import LLM

    llm = LLM(
        model=args.model,
        skip_tokenizer_init=True,
        load_format="dummy",
        dtype=args.dtype,
        enforce_eager=True,
        max_model_len=256,
        max_num_seqs=8,
        disable_log_stats=True,
    )
    cache = llm.llm_engine.vllm_config.cache_config
    caches = llm.collective_rpc(lambda worker: [tensor.nbytes for tensor in worker.model_runner.kv_caches])[0]
    figures = {
        "blocks": cache.num_gpu_blocks,
        "block": cache.block_size,
        "tokens": cache.num_gpu_blocks * cache.block_size,
        "layers": len(caches),
        "bytes": sum(caches),
    }
    print(json.dumps(figures), flush=True)


def show(args: argparse.Namespace, config: dict[str, Any], found: dict[str, dict[str, Any]]) -> None:
    """Print both engines and the ratio beside the one that the shapes give."""
    query = config["qk_nope_head_dim"] + config["qk_rope_head_dim"]
    elements = {
        "latent": config["kv_lora_rank"] + config["qk_rope_head_dim"],
        "heads": 2 * config["num_attention_heads"] * query,
    }
    width = {"bfloat16": 2, "float32": 4}[args.dtype]
    heads = config["num_attention_heads"]
    print(f"{args.config}: {config['num_hidden_layers']} layers, {heads} heads of {query}")
    print(f"{args.gib} GiB in {args.dtype}; one start each\n")
    rows = [
        (
            name,
            found[layout]["tokens"],
            f"{found[layout]['blocks']} × {found[layout]['block']}",
            f"{found[layout]['bytes'] / found[layout]['tokens'] / found[layout]['layers']:.0f}",
            elements[layout] * width,
            f"{found[layout]['bytes'] / 2**30:.3f}",
        )
        for name, layout in (("MLA", "latent"), ("VLLM_MLA_DISABLE=1", "heads"))
    ]
    head = ("", "tokens", "blocks", "bytes/token/layer", "by the shapes", "GiB reserved")
    print(table(head, rows))
    ratio = found["latent"]["tokens"] / found["heads"]["tokens"]
    expected = elements["heads"] / elements["latent"]
    print(f"\ntokens, MLA / without: {ratio:.3f}; by the shapes {expected:.3f} ({ratio / expected - 1:+.1%})")


if __name__ == "__main__":
    main()
