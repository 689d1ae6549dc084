"""Export of a run to files of other programs."""
