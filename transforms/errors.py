"""Errors that are shown to the user as one line, without a traceback."""


class TitheError(Exception):
    """What stops a run, said so that the reader knows which file, row or key is at fault and what to do."""

    exit_code = 1


class EngineLost(TitheError):
    """What runs the pipelines is gone. Threads of this process may still wait for it, so an ordinary exit may hang."""


class InputError(TitheError):
    """The corpus, its losses or the code that the configuration names cannot be used."""


class UsageError(TitheError):
    """The command, the configuration or a Beam option is wrong, found before anything ran."""

    exit_code = 2
