"""Command `hdm status`."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import err, out, print_facts, print_json
from pipeline.cli.execute import errors_json
from pipeline.cli.options import Json, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.runs import RunStore
    from pipeline.runs.shard_states import ShardState

Watch = Annotated[bool, typer.Option("--watch", help="follow the run until all shards are done; ends with Ctrl-C")]

_SECONDS = 2.0  # between two looks at the run
_SHOWN = 50  # shards that are printed; --json has all


def status(run: Run, watch: Watch = False, as_json: Json = False) -> None:
    """Print the progress of a run, and its shards that are not done.

    A shard is at work (who, since when), stale (its worker has ended), failed (the last error) or open.
    """
    from pipeline.runs import RunStore

    store = RunStore.open(run)
    if watch:
        _follow(store)
    facts, errors, states = _facts(store)
    if as_json:
        print_json({**facts, "errors": errors_json(errors), "shard_states": [state.as_dict() for state in states]})
        return
    print_facts(_texts(facts, errors, states))
    if (table := _table(states)) is not None:
        out.print(table)


def _follow(store: RunStore) -> None:
    """Show the shards every two seconds until all are done."""
    from pipeline.runs.shard_states import shard_states

    def look() -> tuple[Text, list[ShardState], bool]:
        states = shard_states(store)
        counts = Counter(state.state for state in states)
        text = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        return Text(f"{len(states):,} shards: {text}"), states, all(_is_committed(state) for state in states)

    try:
        if not err.is_terminal:
            last = ""
            while True:
                line, _, finished = look()
                if line.plain != last:
                    err.print(line, soft_wrap=True)
                    last = line.plain
                if finished:
                    return
                time.sleep(_SECONDS)
        with Live(console=err, auto_refresh=False, transient=True) as live:
            while True:
                line, states, finished = look()
                live.update(Group(line, *filter(None, [_table(states)])), refresh=True)
                if finished:
                    return
                time.sleep(_SECONDS)
    except KeyboardInterrupt:
        return


def _facts(store: RunStore) -> tuple[dict[str, Any], Counter[tuple[str, str]], list[ShardState]]:
    """Return counts of a run, images by status and error, and its shards."""
    from pipeline.runs.records import FAILED_STATUSES
    from pipeline.runs.shard_states import shard_states

    info = store.metadata()
    states = shard_states(store)
    statuses = sum((Counter(part["status"].to_pylist()) for part in store.record_parts(["status"])), Counter[str]())
    errors = store.errors() if any(statuses[status] for status in FAILED_STATUSES) else Counter[tuple[str, str]]()
    done = sum(_is_committed(state) for state in states)
    facts = {"run": store.url, "images": info["images"], "shards": info["shards"], "shards_done": done, "records": dict(statuses)}
    return facts, errors, states


def _texts(facts: dict[str, Any], errors: Counter[tuple[str, str]], states: Sequence[ShardState]) -> dict[str, Any]:
    """Return the facts for people."""
    from pipeline.runs.statuses import error_text

    done, shards = facts["shards_done"], facts["shards"]
    state = "done" if done == shards else "not done; run it again to resume it"
    if any(each.state == "at work" for each in states):
        state = "at work"
    records = ", ".join(f"{count:,} {name}{error_text(errors, name)}" for name, count in sorted(facts["records"].items())) or "none"
    return {"run": facts["run"], "images": facts["images"], "shards": f"{done} of {shards} ({state})", "records": records}


def _is_committed(state: ShardState) -> bool:
    return state.state == "done" or bool(state.failed_images)


def _table(states: Sequence[ShardState]) -> Table | None:
    """Return the shards that are not done as a table; those at work first."""
    order = ("at work", "stale", "failed", "open")
    shown = sorted((state for state in states if state.state != "done"), key=lambda state: order.index(state.state))
    if not shown:
        return None
    table = Table("shard", "rows", "state", "who", "since", "last error", box=None)
    for state in shown[:_SHOWN]:
        error = (f"{state.failed_images:,} images: " if state.failed_images else "") + (state.error or "")
        rows = f"{state.rows[0]}-{state.rows[1] - 1}"
        table.add_row(str(state.shard), rows, state.state, Text(state.holder or ""), state.since or "", Text(error))
    if len(shown) > _SHOWN:
        table.add_row("...", "", f"and {len(shown) - _SHOWN:,} more", "", "", "")
    return table
