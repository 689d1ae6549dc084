"""Ranks of the methods in words, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from hdm_core import METRICS, method_title
from pipeline.tables.paired_formats import p_text
from pipeline.tables.ranks import FEWEST_IMAGES, FEWEST_METHODS, MeanRank, Ranking


def ranks_in_words(rankings: Sequence[Ranking], mean_ranks: Sequence[MeanRank]) -> Group:
    """Render the ranks for a terminal: one line per metric, then the mean rank."""
    if not rankings:
        needs = f"Ranks need {FEWEST_METHODS} methods beside controls, and {FEWEST_IMAGES} images with values of all of them."
        return Group(Text(""), Text(needs, "dim"))
    lines = [Text(""), Text("Average ranks, 1 is the best", "bold")]
    for each in rankings:
        ranks = ", ".join(f"{method_title(method)} {rank:.2f}" for method, rank in each.ranks.items())
        test = f"Friedman p {p_text(each.p)}, critical difference {each.critical_difference:.2f}, n {each.n}"
        lines.append(Text(f"{METRICS[each.metric].title} {METRICS[each.metric].arrow}: {ranks} ({test})"))
    if mean_ranks:
        lines.append(Text(f"mean over the metrics, with 95% interval: {mean_ranks_in_words(mean_ranks)}"))
    return Group(*lines)


def mean_ranks_in_words(mean_ranks: Sequence[MeanRank]) -> str:
    """Format mean ranks with their intervals, the best first."""
    return ", ".join(f"{method_title(each.method)} {each.rank:.2f} ({each.low:.2f} to {each.high:.2f})" for each in mean_ranks)
