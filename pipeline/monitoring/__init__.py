"""Progress, Prometheus metrics and worker logs."""
