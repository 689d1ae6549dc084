"""Our methods against other libraries."""
