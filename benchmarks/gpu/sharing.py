"""One process publishes the policy's weights, another reads them where they lie (CUDA IPC).

Two pushes with an update between: the reader's bytes are the publisher's, which both hash in main memory;
a wrong digest is refused; and once a push is read and released, the policy can leave the GPU. With the
allocator's expandable segments, which CUDA IPC could not share for long, it is only noted what happens.
On a CPU the same goes through shared memory.
"""

from __future__ import annotations

import gc
import pickle
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import part
import shapes
from trainer import Trainer, hash_of
from worker import Worker, WorkerError

from align.errors import SyncError
from align.sync import arena

EXPANDABLE = {
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
}
"""The second is the name that torch gives it since 2.9."""
FREED = 0.9
"""Least share of the policy's bytes that its leaving must free."""


class Reader:
    """The engine's end, without an engine."""

    def __init__(self, device: str) -> None:
        self.device = device

    def read(self, data: bytes) -> tuple[dict[str, bytes], float]:
        """(hashes of what the manifest leads to, seconds until all was there and its digests compared)."""
        begin = time.perf_counter()
        tensors = dict(pickle.loads(data).open())
        shapes.synchronize(self.device)
        seconds = time.perf_counter() - begin
        hashes = {name: hash_of(tensor) for name, tensor in tensors.items()}
        del tensors
        self._let_go()
        return hashes, seconds

    def refuses(self, data: bytes) -> bool:
        """Whether a manifest with one wrong digest is refused."""
        manifest = pickle.loads(data)
        wrong = replace(manifest, digests=(*manifest.digests[:-1], manifest.digests[-1] ^ 1))
        try:
            for _ in wrong.open():
                pass
        except SyncError:
            return True
        finally:
            self._let_go()
        return False

    def _let_go(self) -> None:
        arena.release()
        gc.collect()


def main(device: str, report: part.Report) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = shapes.moderate(Path(folder), device)
        try:
            pushes(path, device, report)
        except WorkerError as error:
            report.check(False, str(error))
        if device != "cpu":
            report.figures["with expandable segments"] = expandable(path, device, report)


def pushes(path: Path, device: str, report: part.Report) -> None:
    """Two pushes, one refusal, and the policy's leave."""
    with Worker(Trainer, path, device) as trainer, Worker(Reader, device) as reader:
        first, publishing = trainer.ask("publish", 0)
        sent = trainer.ask("hashes")
        got, reading = reader.ask("read", first)
        report.check(got == sent, "the reader's bytes are not the publisher's")
        trainer.ask("release")
        report.check(trainer.ask("update") > 0, "the gradient is zero")
        second, again = trainer.ask("publish", 1)
        changed = trainer.ask("hashes")
        got, reading_again = reader.ask("read", second)
        report.check(got == changed, "after an update the reader's bytes are not the publisher's")
        report.check(changed != sent, "the update changed no weight")
        trainer.ask("release")
        third, _ = trainer.ask("publish", 2)
        report.check(reader.ask("refuses", third), "a wrong digest is not refused")
        trainer.ask("release")
        report.figures |= {
            "transport": trainer.ask("transport"),
            "tensors": len(sent),
            "GB": pickle.loads(first).nbytes / 1e9,
            "publish, s (first, second)": f"{publishing:.4f}, {again:.4f}",
            "read, s (first, second)": f"{reading:.4f}, {reading_again:.4f}",
        }
        freed = trainer.ask("leave")
        if device != "cpu":
            for where in ("allocator", "device"):
                report.figures[f"freed by the policy's leave, {where}, share"] = freed[where] / freed["bytes"]
            report.check(
                freed["allocator"] >= FREED * freed["bytes"],
                "after a released push the policy's memory is still held",
            )


def expandable(path: Path, device: str, report: part.Report) -> str:
    """What becomes of one push when both allocators have expandable segments."""
    settings: Mapping[str, str] = EXPANDABLE
    try:
        with (
            Worker(Trainer, path, device, environment=settings) as trainer,
            Worker(Reader, device, environment=settings) as reader,
        ):
            data, _ = trainer.ask("publish", 0)
            sent = trainer.ask("hashes")
            got, _ = reader.ask("read", data)
    except WorkerError as error:
        return f"refused: {error}"
    report.check(got == sent, "with expandable segments the reader gets other bytes, and nothing says so")
    return "read, same bytes" if got == sent else "read, other bytes"


if __name__ == "__main__":
    part.run(main)
