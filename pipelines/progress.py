"""What a run tells while it works: a bar for each stage on a terminal, plain lines elsewhere."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

Count = Callable[[], tuple[int, str]]
"""How much is finished, and a word on it; it looks at the finished files, so it holds for any runner."""

PLAIN_SECONDS = 10.0
"""Between plain lines of one stage."""


class Progress:
    """Tells of stages on standard error.

    Args of the constructor:
        quiet: tell nothing but warnings.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet

    def line(self, name: str, text: str) -> None:
        """Tells one line about a stage."""
        if not self._quiet:
            self._console.print(f"{name:<9} {text}", markup=False)

    def warn(self, text: str) -> None:
        """Tells a warning, even where the run is quiet."""
        self._console.print(f"warning: {text}", markup=False)

    @contextlib.contextmanager
    def watch(self, name: str, total: int, count: Count) -> Iterator[None]:
        """Tells how far a stage has come for as long as the block runs."""
        if self._quiet:
            yield
            return
        ended = threading.Event()
        follow = self._bar if self._console.is_terminal else self._lines
        thread = threading.Thread(target=follow, args=(name, total, count, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=5)

    def _bar(self, name: str, total: int, count: Count, ended: threading.Event) -> None:
        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[word]}"),
        )
        with Bars(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(name, total=total, word="")
            for done, word in _looks(count, ended, 0.5):
                bars.update(task, completed=done, word=word)

    def _lines(self, name: str, total: int, count: Count, ended: threading.Event) -> None:
        for done, word in _looks(count, ended, PLAIN_SECONDS):
            self.line(name, f"{done} of {total} {word}".rstrip())


def _looks(count: Count, ended: threading.Event, seconds: float) -> Iterator[tuple[int, str]]:
    """Yields counts now and then, seldom enough that looking takes little of the time."""
    pause = seconds
    while not ended.wait(pause):
        start = time.monotonic()
        try:
            found = count()
        except Exception:  # a listing may fail in passing; progress is no reason to end a run
            continue
        yield found
        pause = max(seconds, 10 * (time.monotonic() - start))
