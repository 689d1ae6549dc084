"""Pieces of evidence against beam search over patches, and against the truth."""
