"""How long an initiator waits for what, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds. Those of one path add up to what a fail-over takes when a target falls silent."""

    login_s: float = 5  # for a connection and its login
    idle_s: float = 2  # silence after which a NOP-Out asks for a sign of life
    answer_s: float = 3  # and how long its answer may take
    command_s: float = 20  # after which a command that has no answer is aborted
    function_s: float = 5  # how long a task management function or a logout may take
    first_wait_s: float = 0.1  # before a path that died is tried again; doubles each time
    last_wait_s: float = 5
    busy_s: float = 0.01  # before a command that met BUSY is sent again; doubles each time
    deadline_s: float = 30  # after which a command fails that no path could carry
    tick_s: float = 0.5  # the grain of all these
