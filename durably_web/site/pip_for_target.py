"""Runs pip as it would run inside of Pyodide: `python -m durably_web.site.pip_for_target MARKERS ARGUMENTS…`.

pip can be told which wheels to look for, but it compares the markers of requirements with the Python that it runs in.
So it is told here what to compare them with. That reaches into pip; where it has no effect this ends before pip starts.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys

NO_PIP = 97
OTHER_PIP = 98


def main() -> None:
    markers = json.loads(sys.argv[1])
    try:
        importlib.import_module("pip")
    except ModuleNotFoundError:
        sys.exit(NO_PIP)
    try:
        module = importlib.import_module("pip._vendor.packaging.markers")
        setattr(module, "default_environment", lambda: dict(markers))  # noqa: B010
        told = module.Marker("sys_platform == 'emscripten'").evaluate()
    except Exception:
        told = False
    if not told:
        sys.exit(OTHER_PIP)
    sys.argv[:2] = ["pip"]
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
