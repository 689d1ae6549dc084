"""Race of the pipeline against the loops that a user would write."""
