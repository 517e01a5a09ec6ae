"""The fastest a device multiplies matrices: what a model FLOP utilisation is a share of."""

from __future__ import annotations

import time

import torch

GPUS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
}
"""Dense bf16 FLOP/s by the makers' data sheets; a device's name holds one of these."""
_SIDE, _SECONDS = 1024, 0.3


def peak_flops(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of this process's device: from a data sheet in bf16, else measured with a large product.

    Args:
        device: ``cpu`` or ``cuda``.
        dtype: of the products.
    """
    if device != "cpu" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name()
        known = next((flops for key, flops in GPUS.items() if key in name), None)
        if known is not None:
            return known
    return _measured(device, dtype)


def _measured(device: str, dtype: torch.dtype) -> float:
    side = _SIDE if device == "cpu" else 8 * _SIDE
    left = torch.randn(side, side, device=device).to(dtype)  # zeros and ones take less power, and are faster
    out = left @ left  # warms up
    fastest, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(left, left, out=out)
        if device != "cpu":
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * side**3 / fastest
