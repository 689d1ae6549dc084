"""Command line: the commands of `hdm`; nothing imports it."""
