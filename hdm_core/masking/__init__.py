"""Mask optimisation: the equations of the paper."""
