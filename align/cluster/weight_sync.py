"""Trainer → engine: publish, load, verify."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from align.cluster.policy_actor import TRAINER
from align.cluster.remote import wait
from align.cluster.rollout_actor import ENGINE
from align.config.recipe import GrpoRecipe
from align.sync.verify import Agreement
from align.types import SyncReport


class WeightSync:
    """Pushes the policy into the running engine (``align.types.Sync``).

    Usage: ``push()`` after every update, and once before the first rollout.
    Invariant: after ``push`` the engine's weights are the policy's, checksums and probe say so,
    and completions sampled from then on carry the returned version.
    """

    def __init__(
        self,
        policy: Any,
        rollout: Any,
        recipe: GrpoRecipe,
        probe: list[int],
        want: Callable[[str], None] = lambda stage: None,
    ) -> None:
        """Args:
        policy: the PolicyActor.
        rollout: the RolloutActor.
        recipe: tolerance and types.
        probe: token ids that both sides score.
        want: called before the weights travel (``sync``) and before the engine is asked (``verify``).
        """
        self.policy, self.rollout = policy, rollout
        self.every = recipe.sync.every
        types = {recipe.policy.dtype, recipe.rollout.dtype or recipe.policy.dtype}
        self.agreement = Agreement(recipe.sync, "bfloat16" if "bfloat16" in types else "float32")
        self.probe = probe
        self.want = want
        self.version = 0
        self._pushed = False
        place = wait(rollout.where.remote(), ENGINE)
        self.transport = wait(policy.connect.remote(place), TRAINER)

    def push(self) -> SyncReport:
        self.want("sync")
        whole = not self._pushed or wait(self.rollout.needs_all.remote(), ENGINE)
        manifest = wait(self.policy.publish.remote(self.version, whole), TRAINER)
        wait(self.rollout.load.remote(manifest), ENGINE)
        wait(self.policy.release.remote(), TRAINER)
        self._pushed = True
        mean = largest = float("nan")
        if self.version % self.every == 0:
            # One after the other: two computing processes at once slow each other many times over.
            trainer = wait(self.policy.probe.remote(self.probe), TRAINER)
            self.want("verify")
            engine = wait(self.rollout.score.remote(self.probe), ENGINE)
            mean, largest = self.agreement.check(trainer, engine)
            self.agreement.check_decoding(*wait(self.rollout.decode_twice.remote(self.probe), ENGINE))
        report = SyncReport(manifest.version, len(manifest.specs), manifest.nbytes, mean, largest)
        self.version += 1
        return report

    @property
    def held(self) -> int:
        """Version of the weights in the engine."""
        return self.version - 1
