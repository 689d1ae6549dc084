"""A configuration is run again: what to do, and the run laid out with what it takes from the earlier ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pipeline.config.schema import RunConfig
from pipeline.datasets.checksums import SampleChecksums, sample_checksums
from pipeline.errors import InputError
from pipeline.execution.driver import lay_out
from pipeline.plan import Plan, make_plan
from pipeline.reexplain.changes import Change, compare
from pipeline.reexplain.previous import PreviousRun
from pipeline.reexplain.series import comparable, is_finished, next_name, previous_runs
from pipeline.runs import RunStore
from pipeline.runs.metadata import run_json
from pipeline.runs.reuse import NOT_REUSED, ReusePlan

Show = Callable[[int, int], None]


@dataclass(frozen=True)
class ReexplainPlan:
    """What running a configuration again comes to.

    Attributes:
        plan: of the run to make, or of the unfinished one to go on with.
        before: the newest finished earlier run, to compare with; None if there is none.
        unfinished: whether an earlier run of the very same is to be gone on with.
        changes: of every image; empty for a first run and for one that is gone on with.
        reuse: what is taken; None if nothing can be.
        same_images: whether the images are those of `before`, in its order.
    """

    plan: Plan
    before: RunStore | None
    unfinished: bool = False
    changes: Sequence[Change] = ()
    reuse: ReusePlan | None = None
    same_images: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """How many images are new, changed, gone and reused."""
        counted = Counter(change.state for change in self.changes)
        return {state: counted[state] for state in ("new", "changed", "gone", "reused")}

    @property
    def unchanged(self) -> bool:
        """Whether `before` holds all of it already, so that there is nothing to do."""
        return self.same_images and all(change.state == "reused" for change in self.changes)

    def line(self) -> str:
        """What is to be done, in one line."""
        name = self.plan.config.name
        if self.unfinished:
            return f"{name} is not finished and goes on"
        if not self.changes:
            return f"{name} is the first run: all {len(self.plan.samples):,} images are explained"
        if self.unchanged and self.before is not None:
            return f"nothing changed since {self.before.url}: it is referred to, and no new run is made"
        counted = ", ".join(f"{count:,} {state}" for state, count in self.counts.items())
        return f"{name}: {counted}; what is reused is copied shard by shard"

    @property
    def passes(self) -> int:
        """Forward and backward passes that are left to do."""
        if self.reuse is None:
            return self.plan.passes
        return sum(int((self.reuse.sources[m][:, 0] == NOT_REUSED).sum()) * each for m, each in self.plan.passes_per_image.items())


def plan_reexplain(
    config: RunConfig, since: str | None = None, show: Show = lambda done, images: None, now: datetime | None = None
) -> ReexplainPlan:
    """Compares the dataset, the classifier and the settings with the earlier runs; writes nothing.

    Args:
        config: of the series, which its name names.
        since: the run to compare with and to take from; without one they are the newest runs of the series.
        show: told how many of how many images were read.
        now: the time that the new run is named after.

    Raises:
        InputError: if the run cannot be made, or there is no run at `since`.
    """
    plan = make_plan(config.model_copy(update={"name": next_name(config.name, now or datetime.now(UTC))}))
    info = run_json(plan)
    runs = previous_runs(config) if since is None else _named(since, config)
    before = next((run for run in runs if is_finished(run)), None)
    if not runs:
        return ReexplainPlan(plan, None)
    newest = runs[0].metadata()
    if since is None and before is not runs[0] and "renamed_keys" not in newest and all(newest.get(key) == info[key] for key in _SAME):
        going_on = config.model_copy(update={"name": newest["name"]})
        return ReexplainPlan(replace(plan, config=going_on), before, unfinished=True)
    seen: list[SampleChecksums | None] = []
    for item in sample_checksums(plan.samples, config.storage):
        seen.append(item)
        show(len(seen), len(plan.samples))
    earlier = [PreviousRun.read(run) for run in runs]
    changes, reuse = compare(plan, info, seen, earlier)
    same = before is runs[0] and list(earlier[0].rows) == [sample.image_id for sample in plan.samples]
    return ReexplainPlan(plan, before, changes=changes, reuse=reuse, same_images=same)


def create_run(planned: ReexplainPlan) -> tuple[Plan, RunStore]:
    """Lays the run out; what it takes is written down first, so that a run that is killed ends in the same bytes.

    Raises:
        InputError: if it cannot be written.
    """
    return lay_out(planned.plan, planned.reuse)


# What an unfinished run must share with this one to be gone on with.
_SAME = ("schema_version", "config_hash", "model_fingerprint", "interface", "dataset_listing")


def _named(since: str, config: RunConfig) -> list[RunStore]:
    store = RunStore.open(since, config.storage)
    if (run := comparable(store, config.compute.storage_timeout)) is None:
        raise InputError(f"{since}: written by another version of hdm, nothing can be taken from it; leave --since out")
    return [run]
