"""What `hdm run` finds by name."""
