"""Schedules in tabs: one run for each time, whoever leads; and what few of them need is fetched for those only."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from durably_web.site.build import build_site
from durably_web.site.runtime import Runtime
from tests.e2e.conftest import PAGE
from tests.e2e.host import Host, host_of
from tests.e2e.tabs import assert_same_events, end, evaluate, open_client, open_early, wait, wait_for_leader
from tests.e2e.test_lifecycle import tell

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

Visit = Callable[..., "Page"]

JOB_FILE = Path(__file__).parent / "jobs" / "schedule_jobs.py"
JOBS = "schedule_jobs.py"
EVERY = 250

# The runs of a schedule that have ended, the oldest first.
ENDED = """async (name) => {
  return (await durably.getRuns({ status: "completed", schedule: name })).reverse();
}"""
SINCE = f"async ([name, then]) => (await ({ENDED})(name)).some(({{ scheduledAt }}) => Date.parse(scheduledAt) > then)"
MANY = f"async ([name, count]) => (await ({ENDED})(name)).length >= count"


def schedule(page: Page, job: str = "tick", **options: Any) -> Any:
    return evaluate(page, "([job, options]) => durably.schedule(job, options)", [job, options])


def refused(page: Page, **options: Any) -> str:
    """The error of a schedule that cannot be made, as `Name: message`."""
    return str(evaluate(page, "(options) => durably.schedule('tick', options).then(() => 'made', told)", options))


def ended(page: Page, name: str = "tick") -> list[dict[str, Any]]:
    return list(evaluate(page, ENDED, name))


def wait_for_runs(page: Page, count: int, name: str = "tick") -> None:
    """Until so many runs of a schedule have ended."""
    wait(page, MANY, [name, count])


def milliseconds(instant: str) -> int:
    return round(datetime.datetime.fromisoformat(instant).timestamp() * 1000)


def times(runs: list[dict[str, Any]]) -> list[int]:
    return [milliseconds(run["scheduledAt"]) for run in runs]


def assert_one_run_for_each_time(runs: list[dict[str, Any]], every: int = EVERY) -> None:
    at = times(runs)
    assert max(Counter(at).values()) == 1, "two runs for one time"
    assert {(moment - at[0]) % every for moment in at} == {0}, at
    for run in runs:
        assert milliseconds(run["output"]["at"]) == milliseconds(run["scheduledAt"])


def modules(page: Page) -> list[str]:
    return list(evaluate(page, "() => durably.triggerAndWait('which_modules')"))


def wheels(host: Host) -> list[str]:
    """What was asked for of what only some schedules need."""
    names = [asked.path.rpartition("/")[2].partition("-")[0] for asked in host.asked]
    return [name for name in names if name in ("cronsim", "tzdata")]


# -- one tab -----------------------------------------------------------------------------------------------


@pytest.fixture
def host(runtime_directory: Path, tmp_path: Path) -> Iterator[Host]:
    """Serves a site below /my-repo/ as `durably-web build` makes it, and counts."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.html").write_text(PAGE)
    (source / JOBS).write_text(JOB_FILE.read_text())
    build_site(source, tmp_path / "www" / "my-repo", Runtime(runtime_directory))
    with host_of(tmp_path / "www") as host:
        yield host


def open_page(browser: BrowserContext, host: Host, **options: Any) -> Page:
    page = browser.new_page()
    page.goto(f"{host.address}my-repo/")
    assert open_client(page, jobs=JOBS, **options) in ("leader", "follower")
    return page


@pytest.mark.parametrize("snapshot", [True, False], ids=["from memory", "from the beginning"])
def test_only_who_needs_them_fetches_cron_and_zones(browser: BrowserContext, host: Host, snapshot: bool) -> None:
    page = open_page(browser, host, snapshot=snapshot, offline=False)
    made = schedule(page, every=EVERY, input={"n": 1}, labels={"of": "tick"}, priority=2)
    assert (made["name"], made["jobName"], made["every"], made["cron"]) == ("tick", "tick", EVERY, None)
    wait_for_runs(page, 3)
    runs = ended(page)
    assert_one_run_for_each_time(runs)
    assert {(run["labels"]["of"], run["priority"], run["output"]["input"]["n"]) for run in runs} == {("tick", 2, 1)}
    assert wheels(host) == [] and modules(page) == []

    # Each second, in no zone: only what reads expressions.
    schedule(page, name="seconds", cron="* * * * * *")
    wait_for_runs(page, 2, "seconds")
    assert_one_run_for_each_time(ended(page, "seconds"), 1000)
    assert wheels(host) == ["cronsim"] and modules(page) == ["cronsim"]

    morning = schedule(page, name="morning", cron="0 7 * * mon-fri", timezone="Europe/Zurich")
    there = evaluate(
        page,
        """(at) => {
          const clock = new Intl.DateTimeFormat("en-GB", { timeZone: "Europe/Zurich", timeStyle: "long" });
          return clock.format(new Date(at));
        }""",
        morning["nextAt"],
    )
    assert there.startswith("07:00:00"), there
    assert morning["timezone"] == "Europe/Zurich"
    assert schedule(page, name="elsewhere", cron="30 23 * * *", timezone="Asia/Tokyo")["nextAt"] is not None
    assert wheels(host) == ["cronsim", "tzdata"]

    assert refused(page, cron="61 * * * *").startswith("InvalidInput: the cron expression '61 * * * *' cannot be read")
    assert refused(page, cron="* * * * *", timezone="Europe/Nowhere").startswith("InvalidInput: there is no time zone")
    assert refused(page, every=0).startswith("InvalidInput: ")
    assert wheels(host) == ["cronsim", "tzdata"]
    assert {one["name"] for one in evaluate(page, "() => durably.getSchedules()")} == {
        *("tick", "seconds", "morning", "elsewhere")
    }


def test_without_the_server_after_the_first_visit(browser: BrowserContext, host: Host) -> None:
    """What no visit has used yet is in the visitor's copy of the site."""
    page = open_page(browser, host)
    wait(page, "durably.site.stored")
    host.stop()
    page.reload()
    assert open_client(page, jobs=JOBS) == "leader"
    schedule(page, name="seconds", cron="* * * * * *", timezone="Europe/Zurich")
    wait_for_runs(page, 2, "seconds")
    assert_one_run_for_each_time(ended(page, "seconds"), 1000)
    assert "tzdata" in modules(page)


def test_what_reads_cron_cannot_be_had_now(browser: BrowserContext, host: Host) -> None:
    """A new schedule is refused, one that there is waits, others go on; and all is well when the server is back."""
    page = open_page(browser, host, offline=False)
    host.stop()
    told = refused(page, cron="* * * * * *")
    assert (
        told.startswith("RequirementFailed: cronsim could not be loaded: the wheel http://") and "tried again" in told
    )
    schedule(page, every=EVERY)
    wait_for_runs(page, 1)
    host.start()
    assert schedule(page, name="seconds", cron="* * * * * *")["cron"] == "* * * * * *"
    wait_for_runs(page, 1, "seconds")
    assert_one_run_for_each_time(ended(page))


def test_asked_for_before_python_is_up(visit: Visit) -> None:
    """As a page does it at each start: it waits for the engine, and means the same however often it is said."""
    page = visit()
    assert open_early(page, jobs=JOBS) == "leader"
    made = [schedule(page, every=EVERY) for _ in range(2)]
    assert made[0]["nextAt"] is not None and made[0]["createdAt"] == made[1]["createdAt"] == made[1]["updatedAt"]
    wait_for_runs(page, 2)
    assert_one_run_for_each_time(ended(page))


# -- several tabs ------------------------------------------------------------------------------------------


def test_a_follower_can_do_all_of_it(visit: Visit) -> None:
    leader, follower = pages = [visit(), visit()]
    assert [open_client(page, jobs=JOBS) for page in pages] == ["leader", "follower"]
    made = schedule(follower, cron="0 7 * * *", name="morning", input={"n": 1}, missed="one", catchUpWindow=60_000)
    for page in pages:
        assert evaluate(page, "() => durably.getSchedule('morning')") == made
        assert evaluate(page, "() => durably.getSchedules()") == [made]
        assert evaluate(page, "() => durably.getSchedule('nobody')") is None
    assert (made["missed"], made["overlap"], made["catchUpWindow"]) == ("one", "skip", 60_000)

    evaluate(follower, "() => durably.pauseSchedule('morning')")
    assert evaluate(leader, "() => durably.getSchedule('morning')")["paused"] is True
    # By hand it runs all the same, and its times stay as they are.
    by_hand = evaluate(follower, "() => durably.triggerSchedule('morning')")
    assert by_hand["disposition"] == "created"
    run = evaluate(leader, "(id) => durably.waitForRun(id)", by_hand["id"])
    assert (run["schedule"], run["scheduledAt"], run["output"]) == ("morning", None, {"at": None, "input": {"n": 1}})
    assert evaluate(leader, "() => durably.getSchedule('morning')")["nextAt"] is None
    evaluate(follower, "() => durably.resumeSchedule('morning')")
    again = evaluate(leader, "() => durably.getSchedule('morning')")
    assert (again["paused"], again["nextAt"], again["lastAt"]) == (False, made["nextAt"], None)

    changed = evaluate(follower, "() => durably.jobs.tick.schedule({ name: 'morning', every: 3_600_000 })")
    assert (changed["cron"], changed["every"], changed["createdAt"]) == (None, 3_600_000, made["createdAt"])
    evaluate(follower, "() => durably.removeSchedule('morning')")
    for page in pages:
        assert evaluate(page, "() => durably.getSchedules()") == []
        for call in ("removeSchedule", "pauseSchedule", "triggerSchedule"):
            told = evaluate(page, f"() => durably.{call}('morning').then(() => 'done', told)")
            assert told.startswith("NotFound: "), (call, told)
    assert evaluate(follower, "() => durably.schedule('nobody', { every: 1000 }).catch(told)").startswith("NotFound: ")
    assert_same_events(pages)


def test_tabs_come_and_go(visit: Visit) -> None:
    """Each time has one run, also those at which the leader was just gone; every tab hears the same."""
    pages = [visit() for _ in range(4)]
    assert [open_client(page, jobs=JOBS) for page in pages] == ["leader", *["follower"] * 3]
    schedule(pages[3], every=EVERY, missed="all", overlap="allow")
    wait_for_runs(pages[2], 3)
    for how in ("close", "terminate", "freeze", "kill"):
        leader = wait_for_leader(pages)
        others = [page for page in pages if page is not leader]
        if how == "freeze":
            tell(leader, "freeze")
        elif not end(leader, how, others):
            pages = others
        successor = wait_for_leader(others)
        wait_for_runs(successor, len(ended(successor)) + 3)
        if how == "freeze":
            tell(leader, "resume")
    evaluate(pages[0], "() => durably.pauseSchedule('tick')")
    wait(pages[0], "async () => Object.keys((await durably.stats()).byStatus).join() === 'completed'")
    runs = ended(pages[0])
    assert_one_run_for_each_time(runs)
    at = times(runs)
    assert sorted(at) == list(range(min(at), max(at) + 1, EVERY))
    assert_same_events(pages)


# -- nobody was there --------------------------------------------------------------------------------------

SKIPPED = """(name) => events.filter(({ type, schedule, reason }) =>
  type === "schedule:skip" && schedule === name && reason === "missed")"""


def skipped(page: Page, name: str, every: int) -> list[int]:
    """The times that this tab heard had no run because nobody was there."""
    told = evaluate(page, SKIPPED, name)
    found = [
        moment
        for event in told
        for moment in range(milliseconds(event["firstAt"]), milliseconds(event["lastAt"]) + 1, every)
    ]
    assert sum(event["ticks"] for event in told) == len(found)
    return found


def test_what_was_due_while_no_tab_was_open(visit: Visit) -> None:
    page = visit()
    assert open_client(page, jobs=JOBS) == "leader"
    schedule(page, name="all", every=EVERY, missed="all", overlap="allow")
    schedule(page, name="one", every=1000, missed="one", overlap="allow")
    schedule(page, name="skip", every=1000, missed="skip", overlap="allow", catchUpWindow=2000)
    for name in ("all", "one", "skip"):
        wait_for_runs(page, 1, name)
    evaluate(page, "() => durably.close()")
    closed = page.evaluate("Date.now()")
    assert skipped(page, "one", 1000) == skipped(page, "skip", 1000) == []
    wait(page, "(then) => Date.now() >= then", closed + 5000)

    page.reload()
    assert open_client(page, jobs=JOBS) == "leader"
    opened = page.evaluate("Date.now()")
    for name in ("all", "one", "skip"):
        wait(page, SINCE, [name, opened])
        evaluate(page, "(name) => durably.pauseSchedule(name)", name)
    wait(page, "async () => Object.keys((await durably.stats()).byStatus).join() === 'completed'")
    for name, every in [("all", EVERY), ("one", 1000), ("skip", 1000)]:
        runs = ended(page, name)
        assert_one_run_for_each_time(runs, every)
        at = times(runs)
        missing = sorted(set(range(min(at), max(at) + 1, every)) - set(at))
        assert missing == skipped(page, name, every), name
        # Where all are wanted none is missing; else at least two are, of five seconds, and the last may count.
        assert missing == [] if name == "all" else len(missing) >= 2, (name, missing)


def test_a_cron_that_cannot_be_read_at_a_start_waits(browser: BrowserContext, host: Host) -> None:
    """Its file is gone when a visitor comes back: that is told, all else goes on, and it catches up later."""
    page = open_page(browser, host, offline=False)
    schedule(page, name="seconds", cron="* * * * * *", missed="all", overlap="allow")
    wait_for_runs(page, 1, "seconds")
    evaluate(page, "() => durably.close()")
    (wheel,) = (host.directory / "my-repo" / "durably-web" / "wheels").glob("cronsim-*")
    moved = wheel.rename(wheel.with_suffix(".moved"))
    page.context.new_cdp_session(page).send("Network.clearBrowserCache")
    page.reload()
    assert open_client(page, jobs=JOBS, offline=False) == "leader"
    schedule(page, every=EVERY)
    wait_for_runs(page, 2)
    wait(
        page,
        "events.some(({ type, error }) => type === 'worker:error' && error.includes('cronsim could not be loaded'))",
    )
    moved.rename(wheel)
    before = len(ended(page, "seconds"))
    wait_for_runs(page, before + 3, "seconds")
    at = times(ended(page, "seconds"))
    assert sorted(at) == list(range(min(at), max(at) + 1, 1000))
