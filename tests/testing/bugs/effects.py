"""What a job asks of the world outside of its steps."""

from __future__ import annotations

import asyncio
import datetime
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from time import monotonic
from typing import Any

from durably_web import Step, job
from tests.testing.bugs import Bug, double, same

# -- time ------------------------------------------------------------------------------------------------


@job(name="deadline")
async def looks_at_the_time(step: Step, input: dict[str, Any]) -> bool:
    number = await step.run("double", double, 1)
    return time.time() > number


@job(name="deadline")
async def asks_for_the_time_in_a_step(step: Step, input: dict[str, Any]) -> bool:
    number = await step.run("double", double, 1)
    return await step.run("now", time.time) > number


@job(name="stopwatch")
async def looks_at_a_stopwatch(step: Step, input: dict[str, Any]) -> int:
    begun = monotonic()
    await step.run("double", double, 1)
    step.log.info("done", took=monotonic() - begun)
    return 1


@job(name="stopwatch")
async def looks_at_it_in_a_step(step: Step, input: dict[str, Any]) -> int:
    def work() -> float:
        begun = monotonic()
        double(1)
        return monotonic() - begun

    step.log.info("done", took=await step.run("double", work))
    return 1


@job(name="report")
async def names_a_file_by_the_day(step: Step, input: dict[str, Any]) -> Any:
    return await step.run("write", same, f"report-{datetime.datetime.now():%Y}.csv")


@job(name="report")
async def names_it_by_the_day_of_a_step(step: Step, input: dict[str, Any]) -> Any:
    now = await step.run("now", datetime.datetime.now)
    return await step.run("write", same, f"report-{now:%Y}.csv")


@job(name="weekend")
async def does_something_else_on_sundays(step: Step, input: dict[str, Any]) -> Any:
    if datetime.date.today().weekday() == 6:
        return await step.run("rest", same)
    return await step.run("work", double, 1)


@job(name="weekend")
async def decides_by_its_input(step: Step, input: dict[str, Any]) -> Any:
    if datetime.date.fromisoformat(input["day"]).weekday() == 6:
        return await step.run("rest", same)
    return await step.run("work", double, 1)


# -- chance ----------------------------------------------------------------------------------------------


@job(name="sample")
async def tosses(step: Step, input: dict[str, Any]) -> int:
    return await step.run("double", double, 1) if random.random() < 2 else 0


@job(name="sample")
async def tosses_in_a_step(step: Step, input: dict[str, Any]) -> int:
    return await step.run("double", double, 1) if await step.run("toss", random.random) < 2 else 0


def pick(names: list[str]) -> str:
    return random.choice(names)


@job(name="pick")
async def picks_in_a_helper(step: Step, input: dict[str, Any]) -> Any:
    return await step.run("greet", same, pick(["ada"]))


@job(name="pick")
async def picks_in_a_step(step: Step, input: dict[str, Any]) -> Any:
    return await step.run("greet", same, await step.run("pick", pick, ["ada"]))


@job(name="unseeded")
async def shuffles(step: Step, input: dict[str, Any]) -> Any:
    numbers = [1]
    random.Random().shuffle(numbers)
    return await step.run("same", same, numbers)


@job(name="unseeded")
async def shuffles_by_a_seed(step: Step, input: dict[str, Any]) -> Any:
    numbers = [1, 2, 3]
    random.Random(7).shuffle(numbers)
    return await step.run("same", same, numbers)


@job(name="order")
async def makes_an_id(step: Step, input: dict[str, Any]) -> int:
    step.log.info("order", id=str(uuid.uuid4()))
    return await step.run("double", double, 1)


@job(name="order")
async def makes_an_id_of_the_run(step: Step, input: dict[str, Any]) -> int:
    step.log.info("order", id=str(uuid.uuid5(uuid.NAMESPACE_URL, step.run_id)))
    return await step.run("double", double, 1)


@job(name="stamp")
async def makes_an_id_of_the_machine(step: Step, input: dict[str, Any]) -> int:
    step.log.info("order", id=str(uuid.uuid1()))
    return await step.run("double", double, 1)


@job(name="stamp")
async def makes_it_in_a_step(step: Step, input: dict[str, Any]) -> int:
    step.log.info("order", id=str(await step.run("id", uuid.uuid1)))
    return await step.run("double", double, 1)


@job(name="token")
async def makes_a_token(step: Step, input: dict[str, Any]) -> int:
    step.log.info("token", token=secrets.token_hex(4))
    return await step.run("double", double, 1)


@job(name="token")
async def makes_a_token_in_a_step(step: Step, input: dict[str, Any]) -> int:
    step.log.info("token", token=await step.run("token", secrets.token_hex, 4))
    return await step.run("double", double, 1)


@job(name="salt")
async def draws_bytes(step: Step, input: dict[str, Any]) -> int:
    return len(os.urandom(8)) + await step.run("double", double, 1)


@job(name="salt")
async def draws_bytes_in_a_step(step: Step, input: dict[str, Any]) -> int:
    return len(await step.run("salt", os.urandom, 8)) + await step.run("double", double, 1)


# -- files, the environment, processes, the network ------------------------------------------------------


@job(name="save")
async def writes_a_file(step: Step, input: dict[str, Any]) -> None:
    number = await step.run("double", double, 1)
    with open(input["file"], "w") as file:
        file.write(str(number))


@job(name="save")
async def writes_a_file_in_a_step(step: Step, input: dict[str, Any]) -> None:
    number = await step.run("double", double, 1)
    await step.run("write", Path(input["file"]).write_text, str(number))


@job(name="clean")
async def removes_a_file(step: Step, input: dict[str, Any]) -> None:
    await step.run("double", double, 1)
    Path(input["file"]).touch()
    Path(input["file"]).unlink()


@job(name="clean")
async def removes_a_file_in_a_step(step: Step, input: dict[str, Any]) -> None:
    def clean() -> None:
        Path(input["file"]).unlink(missing_ok=True)

    await step.run("clean", clean)


@job(name="configure")
async def sets_a_variable(step: Step, input: dict[str, Any]) -> int:
    os.environ["DURABLY_WEB_OF_A_BUG"] = "1"
    return await step.run("double", double, 1)


@job(name="configure")
async def reads_a_variable_in_a_step(step: Step, input: dict[str, Any]) -> Any:
    return await step.run("path", os.environ.get, "DURABLY_WEB_OF_NOBODY")


@job(name="convert")
async def starts_a_process(step: Step, input: dict[str, Any]) -> int:
    return subprocess.run([sys.executable, "-c", ""], timeout=60).returncode + await step.run("double", double, 1)


@job(name="convert")
async def starts_a_process_in_a_step(step: Step, input: dict[str, Any]) -> int:
    def convert() -> int:
        return subprocess.run([sys.executable, "-c", ""], timeout=60).returncode

    return await step.run("convert", convert)


def knock(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@job(name="ping")
async def opens_a_connection(step: Step, input: dict[str, Any]) -> int:
    knock(9)
    return await step.run("double", double, 1)


@job(name="ping")
async def opens_a_connection_in_a_step(step: Step, input: dict[str, Any]) -> bool:
    return await step.run("knock", knock, 9)


# -- waiting ---------------------------------------------------------------------------------------------


@job(name="pause")
async def sleeps(step: Step, input: dict[str, Any]) -> int:
    await asyncio.sleep(1)
    return await step.run("double", double, 1)


@job(name="pause")
async def sleeps_durably(step: Step, input: dict[str, Any]) -> int:
    await step.sleep("pause", 1)
    return await step.run("double", double, 1)


@job(name="block")
async def blocks(step: Step, input: dict[str, Any]) -> int:
    time.sleep(0.0001)
    return await step.run("double", double, 1)


@job(name="block")
async def blocks_in_a_step(step: Step, input: dict[str, Any]) -> int:
    await step.run("pause", time.sleep, 0.0001)
    return await step.run("double", double, 1)


@job(name="limit")
async def limits_the_time_of_its_steps(step: Step, input: dict[str, Any]) -> int:
    async with asyncio.timeout(5):
        return await step.run("double", double, 1)


@job(name="limit")
async def limits_the_time_of_a_step(step: Step, input: dict[str, Any]) -> int:
    return await step.run("double", double, 1, timeout=5)


@job(name="thread")
async def starts_a_thread(step: Step, input: dict[str, Any]) -> int:
    thread = threading.Thread(target=double, args=(1,))
    thread.start()
    thread.join()
    return await step.run("double", double, 1)


@job(name="thread")
async def reckons_in_a_thread(step: Step, input: dict[str, Any]) -> int:
    # It gives the same each time, and is only too slow for the event loop.
    return await asyncio.to_thread(double, 1) + await step.run("double", double, 1)


async def linger() -> None:
    await asyncio.Event().wait()


@job(name="background")
async def leaves_a_task(step: Step, input: dict[str, Any]) -> int:
    step.log.debug(repr(asyncio.create_task(linger()) is None))
    return await step.run("double", double, 1)


@job(name="background")
async def ends_its_task(step: Step, input: dict[str, Any]) -> int:
    task = asyncio.create_task(linger())
    try:
        return await step.run("double", double, 1)
    finally:
        task.cancel()


FILE = {"file": "file-of-a-bug.txt"}

BUGS = [
    Bug(looks_at_the_time, asks_for_the_time_in_a_step, "time", r"effects\.py:\d+: the job calls time\.time\(\)"),
    Bug(looks_at_a_stopwatch, looks_at_it_in_a_step, "time", r"calls time\.monotonic\(\) outside of a step"),
    Bug(names_a_file_by_the_day, names_it_by_the_day_of_a_step, "time", r"calls datetime\.now\(\)"),
    Bug(does_something_else_on_sundays, decides_by_its_input, "time", r"calls date\.today\(\)", {"day": "2030-01-06"}),
    Bug(tosses, tosses_in_a_step, "chance", r"calls random\.random\(\).*\n.*Draw in a step"),
    Bug(
        picks_in_a_helper,
        picks_in_a_step,
        "chance",
        r"effects\.py:\d+: the job calls random\.Random\.choice\(\)|random\.choice",
    ),
    Bug(shuffles, shuffles_by_a_seed, "chance", r"calls random\.Random\(\)"),
    Bug(makes_an_id, makes_an_id_of_the_run, "chance", r"calls uuid\.uuid4\(\)"),
    Bug(makes_an_id_of_the_machine, makes_it_in_a_step, "chance", r"calls uuid\.uuid1\(\)"),
    Bug(makes_a_token, makes_a_token_in_a_step, "chance", r"calls secrets\.token_hex\(\)"),
    Bug(draws_bytes, draws_bytes_in_a_step, "chance", r"calls os\.urandom\(\)"),
    Bug(writes_a_file, writes_a_file_in_a_step, "effect", r"writes a file \(.*file-of-a-bug\.txt\)", FILE),
    Bug(removes_a_file, removes_a_file_in_a_step, "effect", r"removes a file", FILE),
    Bug(sets_a_variable, reads_a_variable_in_a_step, "effect", r"changes the environment"),
    Bug(starts_a_process, starts_a_process_in_a_step, "effect", r"starts a process"),
    Bug(opens_a_connection, opens_a_connection_in_a_step, "effect", r"opens a connection"),
    Bug(sleeps, sleeps_durably, "waiting", r"calls asyncio\..*sleep\(\).*\n.*step\.sleep"),
    Bug(blocks, blocks_in_a_step, "waiting", r"calls time\.sleep\(\)"),
    Bug(limits_the_time_of_its_steps, limits_the_time_of_a_step, "waiting", r"calls asyncio\.timeouts\."),
    Bug(starts_a_thread, reckons_in_a_thread, "thread", r"starts a thread"),
    Bug(leaves_a_task, ends_its_task, "task", r"returns before a task of its own is done"),
]
