"""Where run files were read: it is `bench.runfile.reader` that does."""

from bench.runfile.reader import (
    TIME,
    Run,
    cpu_of,
    is_number,
    processor,
    processor_model,
    read,
    run_of,
)

__all__ = [
    "TIME",
    "Run",
    "cpu_of",
    "is_number",
    "processor",
    "processor_model",
    "read",
    "run_of",
]
