"""Code that the configuration names: `module:name` of an installed module, or of one file whose text travels with the
pipeline.
"""

import hashlib
import importlib
import importlib.metadata
import importlib.util
import linecache
import sys
import threading
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tithe.transforms.errors import InputError, UsageError

_lock = threading.Lock()


@dataclass(frozen=True)
class UserCode:
    """A reference to an object of the user's, picklable by name or by source, never by value.

    Attributes:
        reference: `module:name`, as in the configuration.
        source: text of the file named by `code:`, or None for an installed module.
        key: the configuration key to name in errors.
    """

    reference: str
    source: str | None
    key: str

    @property
    def fingerprint(self) -> str:
        """What the code is: a hash of its source, or the version of the distribution that installs it."""
        module, _, name = self.reference.partition(":")
        if self.source is not None:
            return f"{name}@{_digest(self.source)}"
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin and spec.origin.endswith(".py"):
            with open(spec.origin, "rb") as file:
                return f"{self.reference}@{hashlib.sha256(file.read()).hexdigest()}"
        distributions = importlib.metadata.packages_distributions().get(module.partition(".")[0], [])
        return f"{self.reference}@{[importlib.metadata.version(d) for d in distributions]}"

    def load(self) -> Any:
        """Returns the object; UsageError where there is none, with the reason."""
        module_name, _, name = self.reference.partition(":")
        try:
            module = importlib.import_module(module_name) if self.source is None else self._from_source(module_name)
        except (Exception, SystemExit) as error:
            remedy = "is it installed where the workers run? A single file can be shipped by `code: FILE.py`"
            raise UsageError(
                f"{self.key}: cannot import {module_name!r}: {type(error).__name__}: {error}; {remedy}"
            ) from error
        try:
            target = module
            for part in name.split("."):
                target = getattr(target, part)
        except AttributeError:
            found = ", ".join(sorted(n for n in vars(module) if not n.startswith("_"))[:10])
            raise UsageError(f"{self.key}: {module_name!r} has no {name!r}; it has: {found}") from None
        return target

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function of this code; InputError, which says what it raised and where, where it fails."""
        try:
            return function(*arguments)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            told = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"{self.key}: {self.reference!r} failed: {told} ({place.filename}, line {place.lineno})"
            ) from error

    def _from_source(self, module_name: str) -> types.ModuleType:
        assert self.source is not None
        name = f"tithe_code_{_digest(self.source)[:16]}"
        with _lock:
            if name not in sys.modules:
                module = types.ModuleType(name)
                file = f"<{module_name}.py>"
                linecache.cache[file] = (len(self.source), None, self.source.splitlines(keepends=True), file)
                sys.modules[name] = module
                try:
                    exec(compile(self.source, file, "exec"), module.__dict__)
                except BaseException:
                    del sys.modules[name]
                    raise
            return sys.modules[name]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
