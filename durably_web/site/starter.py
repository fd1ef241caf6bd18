"""A small site to start from."""

from __future__ import annotations

import shutil
from pathlib import Path

from durably_web import __version__
from durably_web.site.problem import SiteProblem

TEMPLATE = Path(__file__).resolve().parent / "template"

# In the package without the dot, which would hide them from tools.
DOTTED = {"gitignore": ".gitignore", "github": ".github"}

# What stands in the workflow for what differs.
VERSION = "DURABLY_WEB_VERSION"
SITE = "SITE_FOLDER"
WORKFLOW = ".github/workflows/pages.yml"


def write_starter(folder: Path) -> list[str]:
    """Write the site into a new or empty folder, and name its files. Raises `SiteProblem`."""
    if folder.exists() and not folder.is_dir():
        raise SiteProblem(f"{folder} is a file: give the name of a new folder")
    if folder.exists() and any(folder.iterdir()):
        raise SiteProblem(f"{folder} is not empty: give the name of a new folder")
    written = []
    for path in sorted(TEMPLATE.rglob("*")):
        if path.is_dir() or path.suffix == ".pyc":
            continue
        first, *rest = path.relative_to(TEMPLATE).parts
        target = folder.joinpath(DOTTED.get(first, first), *rest)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        written.append(target.relative_to(folder).as_posix())
    workflow = folder / WORKFLOW
    workflow.write_text(pages_workflow("."))
    return written


def pages_workflow(site: str) -> str:
    """What builds and publishes the site in a folder of a repository, as the text of a workflow for GitHub Actions.

    The site is published with the version that it was begun with, until somebody changes that.
    """
    text = (TEMPLATE / "github" / "workflows" / "pages.yml").read_text("utf-8").replace(VERSION, __version__)
    if site == ".":
        return text.replace(f" {SITE}\n", "\n").replace(f"{SITE}/", "")
    return text.replace(SITE, site)
