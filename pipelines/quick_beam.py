"""Two habits of Beam that cost a small selection much of its time, and for which Beam has no option.

- A thread notes which step a bundle is in, less and less often until it sleeps for 0.2 s at a time, and the end of the
  bundle waits for it to wake: 0.1 s on average, in every round.
- Beam looks for states and timers in the signatures of all methods of a DoFn, a dozen times for each while a graph is
  built and run.
"""

from typing import Any
from weakref import WeakKeyDictionary

from apache_beam.runners.worker.statesampler import StateSampler
from apache_beam.transforms import userstate

PERIOD_MS = 10
"""Longest sleep between two samples; each takes microseconds and needs no lock of Python's."""

_look = userstate.get_dofn_specs
_found: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def quicken() -> None:
    """Samples often, and looks once at each DoFn, in this process from now on."""
    StateSampler.__init__.__defaults__ = (PERIOD_MS,)
    userstate.get_dofn_specs = _specs


def _specs(dofn: Any) -> Any:
    if dofn not in _found:
        _found[dofn] = _look(dofn)
    return _found[dofn]
