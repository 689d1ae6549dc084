"""Configuration: schema, loading and its one-line errors."""
