"""Configuration of runs: schema, loading, and errors of one line."""
