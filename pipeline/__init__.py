"""The data: datasets, plans, workers, the store, tables and reports."""
