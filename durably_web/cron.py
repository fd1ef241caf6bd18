"""When a cron expression ticks: a library reads the expression, and here its local times become instants of a zone.

As Debian's cron has it. Where neither the minutes nor the hours begin with `*`, each local time is meant once a day:
one that a change of the clocks leaves out comes right behind the gap, and one that comes twice counts the first time.
Otherwise it ticks at every instant whose local time fits, and so goes on through any change of the clocks.
"""

from __future__ import annotations

import datetime

from durably_web import wheels
from durably_web.errors import InvalidInput

_UTC = datetime.UTC
_SECOND = datetime.timedelta(seconds=1)


async def load_cron(expression: str, timezone: str = "UTC") -> Cron:
    """The ticks of an expression: five fields, or six with the seconds in front.

    Raises `InvalidInput` for an expression or a time zone that there is not, and `RequirementFailed` where what knows
    of them is missing.
    """
    await wheels.load("cronsim")
    if timezone != "UTC" and not _has_zones():
        await wheels.load("tzdata")
    return Cron(expression, timezone)


class Cron:
    """The ticks of an expression in a time zone, in milliseconds since the epoch. Not before `load_cron`."""

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        from cronsim import CronSim, CronSimError

        self._make = CronSim
        self._expression = expression
        self._zone = _zone(timezone)
        fields = expression.split()
        try:
            self._fits = self._make(expression, datetime.datetime(2000, 1, 1))
        except CronSimError as error:
            raise InvalidInput(
                f"the cron expression {expression!r} cannot be read ({error}): it has five fields, minute, hour, day "
                'of month, month, day of week, such as "*/5 * * * *" or "30 2 * * mon-fri"'
            ) from None
        minute, hour = fields[-5:-3]
        self._daily = not minute.startswith("*") and not hour.startswith("*")

    def next_after(self, moment: int) -> int | None:
        """The first tick after a moment; `None` where there is none within decades."""
        try:
            after = datetime.datetime.fromtimestamp(moment // 1000, _UTC)
            found = self._next_daily(after) if self._daily else self._next_fitting(after)
        except (OverflowError, ValueError, OSError):
            # The end of the calendar.
            return None
        return None if found is None else int(found.timestamp()) * 1000

    def _next_local(self, after: datetime.datetime) -> datetime.datetime | None:
        """The first local time after another one, as if no clock was ever changed."""
        return next(self._make(self._expression, after), None)

    def _next_daily(self, after: datetime.datetime) -> datetime.datetime | None:
        local: datetime.datetime | None = self._local(after)
        while local is not None and (local := self._next_local(local)) is not None:
            instant = local.replace(tzinfo=self._zone).astimezone(_UTC)
            if self._local(instant) != local:
                # There is no such time: the instant was reckoned by the offset from before, and lies behind the gap.
                gap = self._local(instant) - local
                instant = self._change(instant - gap, instant)
            # Not the second time of one that comes twice, and not once more behind the same gap.
            if instant > after:
                return instant
        return None

    def _next_fitting(self, after: datetime.datetime) -> datetime.datetime | None:
        # From `begin` on the offset is this one.
        begin, offset = after, self._offset(after)
        while (local := self._next_local((after + offset).replace(tzinfo=None))) is not None:
            found = local.replace(tzinfo=_UTC) - offset
            if self._offset(found) == offset:
                return found
            # The clocks are changed before that: nothing fits until then.
            begin = self._change(begin, found)
            after, offset = begin - _SECOND, self._offset(begin)
        return None

    def _local(self, moment: datetime.datetime) -> datetime.datetime:
        return moment.astimezone(self._zone).replace(tzinfo=None)

    def _offset(self, moment: datetime.datetime) -> datetime.timedelta:
        return self._local(moment) - moment.replace(tzinfo=None)

    def _change(self, before: datetime.datetime, behind: datetime.datetime) -> datetime.datetime:
        """The second in which the clocks were changed between two moments with different offsets."""
        old = self._offset(before)
        while behind - before > _SECOND:
            middle = (before + (behind - before) / 2).replace(microsecond=0)
            if self._offset(middle) == old:
                before = middle
            else:
                behind = middle
        return behind


def _zone(name: str) -> datetime.tzinfo:
    if name == "UTC":
        return _UTC
    if (found := _known_zone(name)) is not None:
        return found
    raise InvalidInput(
        f'there is no time zone {name!r}: there are those of zoneinfo.available_timezones(), such as "Europe/Berlin"'
    )


def _has_zones() -> bool:
    return _known_zone("Europe/London") is not None


def _known_zone(name: str) -> datetime.tzinfo | None:
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    # A name that is a directory, or leads out of the database, or is none at all.
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None
