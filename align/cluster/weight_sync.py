"""Trainer → engines: publish, load, verify."""

from __future__ import annotations

from collections.abc import Callable

from align.cluster.policy_group import PolicyGroup
from align.cluster.rollout_group import RolloutGroup
from align.config.recipe import GrpoRecipe
from align.sync.verify import Agreement
from align.types import SyncReport


class WeightSync:
    """Pushes the policy into the running engines (``align.types.Sync``).

    Usage: ``push()`` after every update, and once before the first rollout.
    Invariant: after ``push`` the weights of every engine are the policy's, checksums and probe say so,
    and completions sampled from then on carry the returned version.
    """

    def __init__(
        self,
        policy: PolicyGroup,
        rollout: RolloutGroup,
        recipe: GrpoRecipe,
        probe: list[int],
        want: Callable[[str], None] = lambda stage: None,
    ) -> None:
        """Args:
        policy: the training ranks.
        rollout: the engines.
        recipe: tolerance and types.
        probe: token ids that both sides score.
        want: called before the weights travel (``sync``) and before engines are asked (``verify``).
        """
        self.policy, self.rollout = policy, rollout
        self.every = recipe.sync.every
        types = {recipe.policy.dtype, recipe.rollout.dtype or recipe.policy.dtype}
        self.agreement = Agreement(recipe.sync, "bfloat16" if "bfloat16" in types else "float32")
        self.probe = probe
        self.want = want
        self.version = 0
        self._pushed = self._verified = False
        self._connect()

    def _connect(self) -> None:
        self._engines = list(self.rollout.actors)
        self.transports = self.policy.connect(self.rollout.places())
        self._pushed = False

    def push(self) -> SyncReport:
        self.want("sync")
        self.rollout.admit()
        sent = self._travel()
        while sent is None:  # an engine was lost on the way: once more, to those that are left
            sent = self._travel()
        self._pushed, self._verified = True, False
        mean = largest = float("nan")
        if self.version % self.every == 0:
            mean, largest = self._compare()
        tensors, nbytes = sent
        report = SyncReport(self.version, tensors, nbytes, mean, largest)
        self.version += 1
        return report

    def _travel(self) -> tuple[int, int] | None:
        """Publish and load, bucket by bucket.

        Returns:
            (tensors, bytes) that each engine got; None when one was lost.
        """
        if self._engines != self.rollout.actors:
            self._connect()
        whole = not self._pushed or self.rollout.needs_all()
        if self._engines != self.rollout.actors:
            return None
        manifests = self.policy.publish(self.version, whole)
        tensors = nbytes = 0
        while self.rollout.load(manifests):
            bucket = manifests[0]  # all engines get the same
            tensors, nbytes = tensors + len(bucket.specs), nbytes + bucket.nbytes
            if bucket.last:
                self.policy.release()
                return tensors, nbytes
            manifests = self.policy.publish_more()
        return None

    def verify(self) -> None:
        """Compare trainer and engines now, unless that was done since the last push.

        Raises:
            SyncError: they disagree.
        """
        if not self._verified:
            self._compare()

    def _compare(self) -> tuple[float, float]:
        # One after the other: two computing processes at once slow each other many times over.
        trainer = self.policy.probe(self.probe)
        self.want("verify")
        found = [self.agreement.check(trainer, engine) for engine in self.rollout.score(self.probe)]
        for decoded in self.rollout.decode_twice(self.probe):
            self.agreement.check_decoding(*decoded)
        self._verified = True
        return max(mean for mean, _ in found), max(largest for _, largest in found)

    @property
    def held(self) -> int:
        """Version of the weights in the engines."""
        return self.version - 1
