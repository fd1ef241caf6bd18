"""All that is decided in advance, from one seed: what is asked for, and what goes wrong when.

When a fault comes is told in runs that have ended, not in seconds: the machine may be slow or fast. What a fault hits
is up to the machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal, NamedTuple, Self, get_args

Durability = Literal["full", "relaxed"]
Kind = Literal["kill worker", "stop worker", "kill client", "kill reader", "restart server", "kill server"]

# What the jobs allow; the checker counts.
LIMIT = 3
PER_KEY = {"keyed": 1, "pairs": 2}
RATE = 6
RATE_SECONDS = 0.5

# So many in a row of so many have a rate: more than may begin at once, however slow the database is.
BURST, OF = 12, 150

# Before that share of the runs, none has a key: while there are none, workers claim in a simpler way.
WITHOUT_KEYS = 0.3


class Asked(NamedTuple):
    """A run that a client asks for."""

    number: int
    job: str
    key: str | None
    priority: int
    impatience: float | None
    """Seconds after which the client gives the first call up and asks again."""
    naps: bool
    talks: bool


class Fault(NamedTuple):
    """When `ended` runs have ended, this goes wrong; `seconds` is how long it lasts."""

    ended: int
    kind: Kind
    target: int
    seconds: float


class Plan(NamedTuple):
    seed: int
    runs: int = 10_000
    steps: int = 5
    workers: int = 8
    clients: int = 4
    kills: int = 60
    stops: int = 20
    client_kills: int = 8
    reader_kills: int = 6
    restarts: int = 4
    crashes: int = 6
    between: int = 300
    """Pieces of traffic between two faults on one connection, on average; 0 for none at all."""
    lease: float = 3.0
    longest_step: float = 0.01
    keys: int = 40
    seconds: float = 3600
    durability: Durability = "relaxed"
    calm: bool = False
    """Nothing goes wrong, and all is asked for before the workers begin: to see how fast they are."""

    def calmed(self) -> Self:
        calm = self._replace(kills=0, stops=0, client_kills=0, reader_kills=0, restarts=0, crashes=0, between=0)
        return calm._replace(clients=0, longest_step=0.0, calm=True)

    def asked(self, number: int) -> Asked:
        draw = random.Random(f"{self.seed} run {number}")
        late = number >= WITHOUT_KEYS * self.runs
        job = "plain"
        if late and not self.calm:
            job = draw.choices(("plain", "keyed", "pairs", "limited"), (10, 5, 2, 2))[0]
            job = "rated" if number % OF < BURST else job
        return Asked(
            number,
            job,
            f"key {draw.randrange(self.keys)}" if job in PER_KEY else None,
            draw.choice((0, 0, 0, 1)),
            draw.random() * 0.005 if draw.random() < 0.05 else None,
            job == "plain" and draw.random() < 0.05 and not self.calm,
            draw.random() < 0.2 and not self.calm,
        )

    def asked_by(self, client: int) -> list[int]:
        """The numbers of the runs that a client asks for, in its order. Some are asked for by two."""
        numbers = [*range(client, self.runs, self.clients)]
        twice = [*range((client + 1) % self.clients, self.runs, self.clients)]
        draw = random.Random(f"{self.seed} twice {client}")
        return sorted({*numbers, *(number for number in twice if draw.random() < 0.05)})

    def pause(self, number: int, step: str) -> float:
        """How many seconds a step takes."""
        return random.Random(f"{self.seed} pause {number} {step}").random() * self.longest_step

    def faults(self) -> list[Fault]:
        return sorted(self._faults())

    def _faults(self) -> Iterator[Fault]:
        draw = random.Random(f"{self.seed} faults")

        def moment(until: float = 0.95) -> int:
            return draw.randrange(self.runs // 50, round(self.runs * until))

        for _ in range(self.kills):
            yield Fault(moment(), "kill worker", draw.randrange(self.workers), 0)
        for _ in range(self.stops):
            # Beyond the lease, also where it was renewed at the last moment.
            yield Fault(moment(), "stop worker", draw.randrange(self.workers), self.lease * (1.3 + draw.random()))
        for _ in range(self.client_kills):
            # They are ahead of the workers.
            yield Fault(moment(0.7), "kill client", draw.randrange(self.clients), 0)
        for _ in range(self.reader_kills):
            yield Fault(moment(), "kill reader", 0, 0)
        for _ in range(self.restarts):
            yield Fault(moment(), "restart server", 0, draw.random())
        for index in range(self.crashes):
            # Now and then for so long that every lease runs out meanwhile.
            yield Fault(moment(), "kill server", 0, self.lease * 1.5 if index % 3 == 2 else draw.random())


CutKind = Literal["cut", "tear", "lose", "delay"]
CUTS: tuple[CutKind, ...] = get_args(CutKind)


class Cut(NamedTuple):
    """What happens to one connection through the proxy, when `after` more pieces have passed."""

    after: int
    kind: CutKind
    seconds: float


def cuts(seed: int, connection: int, between: int) -> Iterator[Cut]:
    """What goes wrong on the n-th connection, one thing after another."""
    draw = random.Random(f"{seed} connection {connection}")
    while between:
        kind = draw.choices(CUTS, (3, 2, 4, 3))[0]
        seconds = draw.choices((0.1, 0.8, 4.0), (14, 5, 1))[0] * draw.random()
        yield Cut(1 + int(draw.expovariate(1 / between)), kind, seconds)


def names(steps: int) -> list[str]:
    return [f"s{number}" for number in range(1, steps + 1)]


def expected(number: int, steps: int) -> int:
    """The output of a run: each step adds one, and the third and fourth are side by side where there are five."""
    return number + steps if steps < 5 else 2 * (number + 3) + steps - 4
