"""Execution on Ray: driver, worker pool, worker, cluster, cost."""
