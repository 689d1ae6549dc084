"""Objects below a URL, with retries; nothing here knows of runs."""
