"""What stops a build."""

from __future__ import annotations


class SiteProblem(Exception):
    """The folder, its requirements or the network do not allow it. The message says what to do."""
