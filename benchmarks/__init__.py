"""How fast durably_web is beside the raw limits of what it stands on. `python -m benchmarks --help`."""
