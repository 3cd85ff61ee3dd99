"""Beam's sampler of states, without the wait where a bundle ends.

A thread notes which step a bundle is in, less and less often until it sleeps for 0.2 s at a time, and the end of the
bundle waits for it to wake: 0.1 s on average, in every round.
"""

from apache_beam.runners.worker.statesampler import StateSampler

PERIOD_MS = 10
"""Longest sleep between two samples; each takes microseconds and needs no lock of Python's."""


def sample_often() -> None:
    """Shortens the sleep in this process. Beam has no option for it: its own period is the default of an argument."""
    StateSampler.__init__.__defaults__ = (PERIOD_MS,)
