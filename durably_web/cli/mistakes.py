"""What ends a command: a mistake of the user's, told in one line."""

from __future__ import annotations

from durably_web.errors import (
    Conflict,
    DurablyError,
    InvalidInput,
    NotADatabase,
    NotFound,
    SchemaTooNew,
    StoreUnavailable,
)
from durably_web.site.problem import SiteProblem

MISTAKE = 2
FAILURE = 1

_MISTAKES = (Conflict, InvalidInput, NotADatabase, NotFound, SchemaTooNew, StoreUnavailable)


class Mistake(Exception):
    """The command was given something that it cannot use. The message is one line."""


def exit_code_of(error: Mistake | DurablyError | SiteProblem) -> int:
    """2 when the user can put it right, 1 when something else went wrong."""
    return MISTAKE if isinstance(error, (Mistake, SiteProblem, *_MISTAKES)) else FAILURE
