"""`Durably` for sync code: Flask, Django, scripts, whatever has no event loop.

The names, arguments and results are those of `durably_web.Durably`; what is awaited there is waited for here. A job
is the same async function, and both may be used on one database.
"""

from durably_web.blocking.durably import Durably
from durably_web.blocking.handle import RunHandle

__all__ = ["Durably", "RunHandle"]
