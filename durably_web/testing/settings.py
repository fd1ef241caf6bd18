"""What holds for all tests of a session."""

from __future__ import annotations

watch = False
"""Whether every engine looks at what its jobs do outside of steps, and says so when it is left."""
