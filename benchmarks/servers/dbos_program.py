"""Measures DBOS. Run by a Python that has it, with nothing of ours: URL STEPS RUNS TRIGGERS."""

import json
import sys
import time
from statistics import median

from dbos import DBOS  # type: ignore[import-not-found, unused-ignore]

RESULT = {
    "id": "01JD5XK2M9",
    "name": "Ted Stevens Anchorage International",
    "state": "AK",
    "latitude": 61.17432028,
    "saved": True,
}
first_lines: list[float] = []
saved_at: list[float] = []


def main() -> None:
    url, steps, runs, triggers = sys.argv[1], *map(int, sys.argv[2:])
    DBOS(
        config={
            "name": "benchmark",
            "system_database_url": url.replace("postgresql://", "postgresql+psycopg://"),
            "run_admin_server": False,
            "log_level": "CRITICAL",
        }
    )

    @DBOS.step()  # type: ignore[misc, untyped-decorator, unused-ignore]
    def save() -> dict[str, object]:
        saved_at.append(time.perf_counter())
        return RESULT

    @DBOS.workflow()  # type: ignore[misc, untyped-decorator, unused-ignore]
    def many_steps(count: int) -> int:
        for _ in range(count):
            save()
        return count

    @DBOS.workflow()  # type: ignore[misc, untyped-decorator, unused-ignore]
    def one_step() -> dict[str, object]:
        found: dict[str, object] = save()
        return found

    @DBOS.workflow()  # type: ignore[misc, untyped-decorator, unused-ignore]
    def first_line(sent: float) -> None:
        first_lines.append((time.monotonic() - sent) * 1000)

    DBOS.launch()
    queue = DBOS.register_queue("runs", worker_concurrency=10)
    found: dict[str, tuple[float, str]] = {}

    many_steps(20)
    begun = time.perf_counter()
    assert many_steps(steps) == steps
    found["steps/s"] = steps / (time.perf_counter() - begun), "one workflow, a step after the other"

    begun = time.perf_counter()
    for handle in [DBOS.start_workflow(one_step) for _ in range(runs)]:
        handle.get_result()
    found["runs/s with their triggers"] = runs / (time.perf_counter() - begun), "started directly, in its threads"

    begun = time.perf_counter()
    for handle in [queue.enqueue(one_step) for _ in range(runs)]:
        handle.get_result()
    # To the last step: who waits for a result asks once in a while only.
    rate = runs / (saved_at[-1] - begun)
    found["runs/s with their triggers, by a queue"] = rate, "10 at a time, as we do; it asks every second"

    for _ in range(triggers):
        queue.enqueue(first_line, time.monotonic()).get_result()
    found["trigger → first line, by a queue"] = median(first_lines), "default settings"
    DBOS.destroy()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
