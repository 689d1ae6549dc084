"""A run made again: what an earlier run holds already is taken from it, the rest is computed."""

from pipeline.reexplain.again import Again, plan_again, start_again
from pipeline.reexplain.changes import Change

__all__ = ["Again", "Change", "plan_again", "start_again"]
