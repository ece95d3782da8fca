"""The figures of this library beside their targets: ``python -m bench``. See docs/benchmarks.rst."""
