"""Every error that durably_web raises on purpose.

    DurablyError
    ├── InvalidInput        the caller passed something that cannot be used
    ├── NotFound            no such job or run
    ├── Conflict            the run's state forbids it
    ├── NotSerializable     a value cannot be stored as JSON
    ├── Fatal               raised by a job: no policy tries it again
    │   ├── ReplayMismatch      the code asks for a stored step as for what it is not
    │   └── CodeChanged         the code differs from what the run began with
    ├── SignalTimeout       no signal came in time
    ├── OffloadFailed       the process or worker of an offloaded step died
    ├── RequirementFailed   a package that is needed cannot be loaded
    ├── NetworkError        a request got no answer
    │   ├── Offline             there is no network
    │   ├── Unreachable         the server gives no answer
    │   ├── CrossOriginRefused  the server does not let this site read its answers (CORS)
    │   └── MixedContent        a page of https may not ask over http
    ├── StepFailed          a stored failure whose own class cannot be found any more
    ├── RunFailed           seen when waiting for a run that failed
    ├── RunCancelled        seen when waiting for a run that was cancelled
    └── StoreError          the database
        ├── StoreBusy           another connection holds it for too long
        ├── StoreUnavailable    it cannot be opened or reached
        ├── StorageFull         no room left
        ├── ResponseTooLarge    what is to be read does not fit into one answer
        ├── StoreNotDurable     what it promises is less than was asked for
        ├── ConstraintViolated  a statement broke the schema
        ├── NotADatabase        the file holds something else
        ├── DecryptionFailed    a sealed value cannot be opened
        └── SchemaTooNew        a newer durably_web has migrated it: it can only be read

    ControlFlow (BaseException: a job's `except Exception` cannot swallow it)
    ├── LeaseLost           another worker owns the run now
    ├── RunInterrupted      the run was cancelled while it executed
    ├── RunTimedOut         the run took longer than its job allows
    └── RunSuspended        the worker stops, or the run waits; it goes on later

A class without a message of its own uses the first line of its docstring.
"""

from __future__ import annotations


class DurablyError(Exception):
    """Something went wrong in durably_web."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class InvalidInput(DurablyError, ValueError):
    """The input does not fit what the job asks for."""


class NotFound(DurablyError, LookupError):
    """There is no such job or run."""


class Conflict(DurablyError):
    """The state of the run forbids this."""


class NotSerializable(DurablyError, TypeError):
    """The value cannot be stored as JSON."""


class Fatal(DurablyError):
    """Raise it in a step or a job for a failure that is final: no policy tries it again."""


class ReplayMismatch(Fatal):
    """The code asks for a stored step as for something that it is not.

    `step` is its name with its occurrence, where that is known.
    """

    step: str | None = None


class CodeChanged(Fatal):
    """The code of the job differs from what the run began with, and the job asks to fail then."""


class SignalTimeout(DurablyError, TimeoutError):
    """No signal came in time."""


class OffloadFailed(DurablyError):
    """The process or worker that executed an offloaded step died, or could not be started."""


class RequirementFailed(DurablyError, ImportError):
    """A package that this needs cannot be loaded."""


class NetworkError(DurablyError, ConnectionError):
    """A request got no answer.

    In a browser, that is what `pyfetch` and `fetch` fail with; `requests` and `urllib` raise their own errors there
    too, with one of these as the cause. `url` is that of the request, without user, query and fragment. In `retry_on`
    and `give_up_on` of a `Retry` this class stands for what any library raises for that reason.
    """

    def __init__(self, message: str | None = None, *, url: str | None = None) -> None:
        super().__init__(message)
        self.url = url


class Offline(NetworkError):
    """There is no network."""


class Unreachable(NetworkError):
    """The server gives no answer."""


class CrossOriginRefused(NetworkError):
    """The server does not let this site read its answers (CORS)."""


class MixedContent(NetworkError):
    """A page of https may not ask over http."""


class StepFailed(DurablyError):
    """A step failed in an earlier execution, and its exception class cannot be found any more."""


class RunFailed(DurablyError):
    """The run failed."""

    def __init__(self, message: str | None = None, *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id


class RunCancelled(DurablyError):
    """The run was cancelled."""

    def __init__(self, message: str | None = None, *, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id


class StoreError(DurablyError):
    """The database refused or failed.

    `code` is the database's own name for it (`SQLITE_IOERR`); `statement_index` is the position in the
    batch, where it is known. A batch that raised left nothing behind, unless the reply itself was lost:
    sending the same batch again is always safe.
    """

    def __init__(
        self, message: str | None = None, *, code: str | None = None, statement_index: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.statement_index = statement_index


class StoreBusy(StoreError):
    """Another connection holds the database for too long."""


class StoreUnavailable(StoreError):
    """The database cannot be opened or reached."""


class StorageFull(StoreError):
    """There is no room left for the database."""


class ResponseTooLarge(StoreError):
    """What is to be read does not fit into one answer of the database.

    The engine reads on in smaller pieces, so this is raised for what cannot be divided: a single value.
    """


class StoreNotDurable(StoreError):
    """The database does not promise the durability that was asked for."""


class NotADatabase(StoreError):
    """The file is not a SQLite database."""


class SchemaTooNew(StoreError):
    """A newer durably_web has migrated the database: this process can only read it."""


class DecryptionFailed(StoreError):
    """A sealed value cannot be opened: no key, another key, or it was changed."""


class ConstraintViolated(StoreError):
    """A statement broke a constraint of the schema."""


class ControlFlow(BaseException):
    """Ends the execution of a run from outside; never caught by `except Exception`."""


class LeaseLost(ControlFlow):
    """Another worker owns the run now; nothing this one writes has any effect."""


class RunInterrupted(ControlFlow):
    """The run was cancelled while it executed."""


class RunTimedOut(ControlFlow):
    """The run took longer than its job allows."""


class RunSuspended(ControlFlow):
    """The worker is stopping, or the run waits; it goes on from its last stored step later."""
