"""Execution of plans: driver, executors on Ray and in this process, worker, cost."""
