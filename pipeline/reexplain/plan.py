"""Plan of an incremental run: what to compute and what to reuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pipeline.config.schema import EVIDENCE_METHOD, RunConfig
from pipeline.datasets.checksums import SampleChecksums, sample_checksums
from pipeline.errors import InputError
from pipeline.execution.driver import lay_out
from pipeline.monitoring.progress import Progress, ProgressCallback, no_progress
from pipeline.plan import Plan, make_plan
from pipeline.reexplain.changes import Change, compare
from pipeline.reexplain.previous import PreviousRun
from pipeline.reexplain.series import comparable, is_finished, next_name, previous_runs
from pipeline.runs import RunStore
from pipeline.runs.metadata import run_json
from pipeline.runs.reuse import NOT_REUSED, ReusePlan


@dataclass(frozen=True)
class ReexplainPlan:
    """Plan of an incremental run.

    Attributes:
        plan: of the new run, or of the unfinished run to resume.
        before: the newest finished earlier run, to compare with; None if there is none.
        unfinished: True if an earlier run with the same plan is resumed.
        changes: one per image; empty for a first run and for a resumed one.
        reuse: which explanations come from earlier runs; None if none can.
        same_images: True if the images are those of `before`, in its order.
    """

    plan: Plan
    before: RunStore | None
    unfinished: bool = False
    changes: Sequence[Change] = ()
    reuse: ReusePlan | None = None
    same_images: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of images that are new, changed, gone and reused."""
        counted = Counter(change.state for change in self.changes)
        return {state: counted[state] for state in ("new", "changed", "gone", "reused")}

    @property
    def unchanged(self) -> bool:
        """True if `before` holds every explanation, so that nothing is to be done."""
        return self.same_images and all(change.state == "reused" for change in self.changes)

    def line(self) -> str:
        """Return the plan as one line."""
        name = self.plan.config.name
        if self.unfinished:
            return f"{name} is not finished and is resumed"
        if not self.changes:
            return f"{name} is the first run: all {len(self.plan.samples):,} images are explained"
        if self.unchanged and self.before is not None:
            return f"nothing changed since {self.before.url}: it is referred to, and no new run is made"
        counted = ", ".join(f"{count:,} {state}" for state, count in self.counts.items())
        return f"{name}: {counted}; what is reused is copied shard by shard"

    @property
    def passes(self) -> int:
        """Forward and backward passes that are left."""
        if self.reuse is None:
            return self.plan.passes
        open_images = {method: int((sources[:, 0] == NOT_REUSED).sum()) for method, sources in self.reuse.sources.items()}
        passes = sum(open_images[method] * passes for method, passes in self.plan.passes_per_image.items())
        return passes + open_images.get(EVIDENCE_METHOD, 0) * self.plan.evidence_passes


def plan_reexplain(
    config: RunConfig, since: str | None = None, on_progress: ProgressCallback = no_progress, now: datetime | None = None
) -> ReexplainPlan:
    """Compare dataset, classifier and settings with the earlier runs.

    Nothing is written.

    Args:
        config: of the series of runs that has its name.
        since: the run to compare with and to reuse; default: the newest runs of the series.
        on_progress: called after each image that was read.
        now: the time in the new run's name.

    Raises:
        InputError: if the run cannot start, or there is no run at `since`.
    """
    plan = make_plan(config.model_copy(update={"name": next_name(config.name, now or datetime.now(UTC))}))
    info = run_json(plan)
    runs = previous_runs(config) if since is None else _named(since, config)
    before = next((run for run in runs if is_finished(run)), None)
    if not runs:
        return ReexplainPlan(plan, None)
    newest = runs[0].metadata()
    if since is None and before is not runs[0] and "renamed_keys" not in newest and all(newest.get(key) == info[key] for key in _SAME_PLAN):
        resumed = config.model_copy(update={"name": newest["name"]})
        return ReexplainPlan(replace(plan, config=resumed), before, unfinished=True)
    checksums: list[SampleChecksums | None] = []
    for sample in sample_checksums(plan.samples, config.storage):
        checksums.append(sample)
        on_progress(Progress(len(checksums), len(plan.samples), "images read"))
    previous = [PreviousRun.read(run) for run in runs]
    changes, reuse = compare(plan, info, checksums, previous)
    same_images = before is runs[0] and list(previous[0].rows) == [sample.image_id for sample in plan.samples]
    return ReexplainPlan(plan, before, changes=changes, reuse=reuse, same_images=same_images)


def create_run(planned: ReexplainPlan) -> tuple[Plan, RunStore]:
    """Create the run on storage.

    reuse.parquet is written first, so that a run that is killed resumes to the same bytes.

    Raises:
        InputError: if it cannot be written.
    """
    return lay_out(planned.plan, planned.reuse)


# Keys of run.json that an unfinished run must share with this one to be resumed.
_SAME_PLAN = ("schema_version", "config_hash", "model_fingerprint", "interface", "dataset_listing")


def _named(since: str, config: RunConfig) -> list[RunStore]:
    store = RunStore.open(since, config.storage)
    if (run := comparable(store, config.compute.storage_timeout)) is None:
        raise InputError(f"{since}: written by another version of hdm, nothing can be reused from it; leave --since out")
    return [run]
