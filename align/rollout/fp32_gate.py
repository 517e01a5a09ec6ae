"""Gates in fp32 on a CPU, as in the trainer.

``moe_router_dtype: float32`` makes vLLM ask the matrix product for fp32 results. On a CPU there is no such
product: the gate multiplies in bf16, rounds, and widens what is left, so that some tokens go to other
experts than in the trainer. Gates that keep their weights in fp32 multiply in fp32.
"""

from __future__ import annotations

from typing import Any

import torch


def use_fp32_gates() -> None:
    """Let engines that start in this process from now on keep gates in fp32 where their model asks for it."""
    from vllm.model_executor.custom_op import op_registry_oot
    from vllm.model_executor.layers.fused_moe.router.gate_linear import GateLinear

    if GateLinear.__name__ in op_registry_oot:
        return

    class Fp32Gate(GateLinear):
        def __init__(self, *args: Any, out_dtype: torch.dtype | None = None, **kwargs: Any) -> None:
            kwargs["force_fp32_compute"] = out_dtype == torch.float32
            super().__init__(*args, out_dtype=out_dtype, **kwargs)

    GateLinear.register_oot(Fp32Gate)
