"""The tests mirror the packages; contracts holds the suites that whole families must pass."""
