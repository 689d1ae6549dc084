"""Quality of settings against the passes that they cost."""
