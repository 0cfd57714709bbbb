"""Runs what is not excluded, and reports what ran: nothing is left out but by the list."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import TestCase, TestSuite

import excluded  # type: ignore[import-not-found] # beside this file, on the path of its process
from django.test.runner import DiscoverRunner

if TYPE_CHECKING:
    from collections.abc import Iterator


class Runner(DiscoverRunner):
    def build_suite(self, *args: Any, **kwargs: Any) -> TestSuite:
        suite = super().build_suite(*args, **kwargs)
        self.left_out: list[str] = []
        return type(suite)(self._kept(suite))

    def _kept(self, suite: TestSuite) -> Iterator[TestCase]:
        memcached = os.environ["STORE_URL"].startswith("memcached")
        names = excluded.TESTS | (excluded.MEMCACHED_TESTS if memcached else {})
        others = excluded.OTHERS | (excluded.MEMCACHED_OTHERS if memcached else {})
        for test in suite:
            if isinstance(test, TestSuite):
                yield from self._kept(test)
                continue
            _, name, method = test.id().rsplit(".", 2)
            if name in excluded.CLASSES:
                self.left_out.append(name)
            elif name == "OneTripTests" and method in names:
                self.left_out.append(method)
            elif f"{name}.{method}" in others:
                self.left_out.append(f"{name}.{method}")
            else:
                yield test

    def suite_result(self, suite: TestSuite, result: Any, **kwargs: Any) -> int:
        report = {
            "ran": result.testsRun,
            "skipped": [f"{test.id()}: {reason}" for test, reason in result.skipped],
            "expected_failures": [test.id() for test, _ in result.expectedFailures],
            "left_out": sorted(set(self.left_out)),
        }
        Path(os.environ["REPORT"]).write_text(json.dumps(report), encoding="utf-8")
        return super().suite_result(suite, result, **kwargs)
