"""All sections in their order, and the report of a session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from infra.gpu.agreement import check_agreement
from infra.gpu.facts import check_facts
from infra.gpu.folding import check_folding
from infra.gpu.goals import goals
from infra.gpu.memory import check_memory
from infra.gpu.run_tests import check_tests
from infra.gpu.session import Section, Session, say
from infra.gpu.shares import check_shares
from infra.gpu.sizes import FULL, TINY
from infra.gpu.speed import check_speed
from infra.gpu.throughput import check_throughput

# Estimates for an H100 with 16 cores: 525 seconds in all.
SECTIONS = (
    Section("facts", check_facts, 20),
    Section("tests", check_tests, 100),
    Section("folding", check_folding, 30),
    Section("memory", check_memory, 25),  # before graphs and libraries have memory of their own
    Section("agreement", check_agreement, 90),
    Section("speed", check_speed, 130),
    Section("throughput", check_throughput, 50),
    Section("shares", check_shares, 80),
)


def run_sections(out: Path, seconds: float, tiny: bool, only: Sequence[str] = ()) -> int:
    """Run the sections, print goals and JSON, and return the exit status.

    Args:
        out: folder of result.json and the logs.
        seconds: for all sections.
        tiny: use the tiny sizes, also on a GPU.
        only: names of the sections to run; all if empty.

    Returns:
        1 if a section failed, a goal was missed or time ran out, else 0.
    """
    known = [section.name for section in SECTIONS]
    if unknown := [name for name in only if name not in known]:
        raise SystemExit(f"infra.gpu: no section {unknown[0]!r}: choose from {', '.join(known)}")
    sizes = TINY if tiny or not torch.cuda.is_available() else FULL
    if sizes.tiny:
        say("tiny networks and images: the goals of speed are not measured" + ("" if torch.cuda.is_available() else "; there is no GPU"))
    if sizes.threads is not None:
        torch.set_num_threads(sizes.threads)
    session = Session(out, seconds, sizes)
    session.run([section for section in SECTIONS if not only or section.name in only])
    checked = goals(session.result)
    session.result["goals"] = {goal.text: [goal.reached, goal.value] for goal in checked}
    session.save()
    for goal in checked:
        say(goal.line())
    for error in session.result["errors"]:
        say(f"error        {error}")
    say(session.line())
    return int("cut_off" in session.result or any(goal.reached is False for goal in checked))
