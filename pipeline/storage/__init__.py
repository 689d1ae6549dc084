"""Storage of objects below a URL, with retries; independent of runs."""
