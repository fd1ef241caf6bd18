"""The alerts and panels of the guide name metrics, labels and values that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from durably_web import Durably, Step, job
from durably_web.cli.gathering import merged
from durably_web.counts import ENDS, OUTCOMES
from durably_web.metrics import Metrics
from tests.docs.pages import ROOT, blocks

PAGE = (ROOT / "docs" / "guide" / "metrics.md").read_text("utf-8")

_NAME = re.compile(r"\bdurably_[a-z_]+\b")
_SELECTOR = re.compile(r'(durably_[a-z_]+)\{(\w+)="([^"]+)"\}')
_BY = re.compile(r"\bby \(([^)]+)\)")


@job
async def one(step: Step, input: dict[str, Any]) -> None:
    await step.run("one", lambda: None)


@pytest.fixture(scope="module")
def expressions() -> list[str]:
    rules = next(
        yaml.safe_load(block.body) for block in blocks(PAGE) if block.info == "yaml" and "groups:" in block.body
    )
    alerts = rules["groups"][0]["rules"]
    assert all({"alert", "expr"} <= rule.keys() for rule in alerts)
    panels = [
        found for line in PAGE.splitlines() if line.startswith("|") for found in re.findall(r"`([^`]*\([^`]*)`", line)
    ]
    chosen = [rule["expr"] for rule in alerts] + [panel for panel in panels if "durably_" in panel and " by " in panel]
    assert len(alerts) >= 7 and len(chosen) >= len(alerts) + 6
    return chosen


async def exposed() -> dict[str, set[str]]:
    """Every sample there is of one engine and of a supervisor, with its labels."""
    async with Durably(":memory:", jobs=[one]) as durably:
        metrics = Metrics(durably, process=True)
        async for event in (await durably.trigger(one)).events():
            assert event.type != "run:fail"
        while metrics._counts._asking:
            await metrics.read()
        text = (await metrics.text()).decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(merged({1: text}, 1, 0).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
        found.setdefault(family.name + "_total" if family.type == "counter" else family.name, set())
    return found


async def test_expressions_name_what_there_is(expressions: list[str]) -> None:
    there = await exposed()
    for expression in expressions:
        names = _NAME.findall(expression)
        assert names and set(names) <= there.keys(), expression
        for label in {label.strip() for group in _BY.findall(expression) for label in group.split(",")}:
            assert any(label in there[name] for name in names), (label, expression)
        assert expression.count("(") == expression.count(")"), expression


def test_the_values_of_labels_are_those_that_there_are(expressions: list[str]) -> None:
    values = {"status": set(ENDS.values()), "outcome": set(OUTCOMES.values())}
    selected = [found for expression in expressions for found in _SELECTOR.findall(expression)]
    assert selected
    for name, label, value in selected:
        assert value in values[label], (name, label, value)


async def test_the_table_has_every_metric() -> None:
    documented = {name for line in _rows() for name in _NAME.findall(line.split("|")[1])}
    there = {re.sub(r"_(bucket|count|sum)$", "", name) for name in await exposed() if name.startswith("durably_")}
    assert documented == there


def _rows() -> Iterator[str]:
    part = PAGE[PAGE.index("## What is counted") : PAGE.index("The port of `worker`")]
    return (line for line in part.splitlines() if line.startswith("| `durably_"))
