"""Under gevent, a greenlet that waits for a trip lets the others run."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Server


# By name: importing them would bring gevent into this process.
PROGRAMS = [
    "others_run_while_one_waits",
    "each_gets_its_own_answers",
    "only_trips_give_way",
    "scopes_do_not_leak",
    "failures_are_raised_where_they_belong",
    "one_that_stops_waiting_leaves_no_answer_behind",
    "a_delete_that_is_not_waited_for_is_delivered",
    "the_hub_and_native_threads_wait_themselves",
    "values_may_give_way_while_they_are_read",
    "forked_children_go_on",
    "a_miss_is_computed_once",
    "a_killed_owner_hands_over",
    "a_circle_is_computed",
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_greenlet_program(program: str, server: Server, tmp_path: Path) -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "tests.gevent_programs"),
            *(program, server.url, str(server.pid)),
        ],
        env={**os.environ, "DISK_URL": f"disk://{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout + ran.stderr == ""
