"""GitHub Pages, for a site whose jobs run in the browser."""

from __future__ import annotations

from pathlib import Path

from durably_web.cli.deploying.project import Plan
from durably_web.cli.mistakes import Mistake
from durably_web.site.starter import pages_workflow


def github_pages(folder: str, line: str) -> Plan:
    """A workflow that builds a static site and publishes it, without a secret."""
    if Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise Mistake(f"{folder} is not below this folder: call it in the root of the repository")
    if not (Path(folder) / "index.html").is_file():
        raise Mistake(f"{folder} has no index.html: `durably-web new DIR` writes a site to start from")
    text = f"# Made by `{line}`. It is yours now: change it as you like.\n{pages_workflow(Path(folder).as_posix())}"
    lines = [
        "once, on GitHub: Settings, Pages, Source: GitHub Actions",
        "git add .github && git commit -m 'Publish on GitHub Pages' && git push",
    ]
    notes = [
        "jobs run in the visitor's browser, and their runs are kept there: there is no worker and no common database"
    ]
    return Plan({".github/workflows/pages.yml": text}, lines, notes)
