"""Raw logs to atomic files: one module per source, `python -m dataset_tools <source> …` (installed as `lsvcr-data`)."""

__version__ = "0.1.0"
