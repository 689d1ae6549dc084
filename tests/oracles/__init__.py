"""Our methods compared with other libraries' implementations."""
