"""Errors that are shown to the user as one line, without a traceback."""


class TitheError(Exception):
    """What stops a run, said so that the reader knows which file, row or key is at fault and what to do."""

    exit_code = 1


class InputError(TitheError):
    """The corpus, its losses or the code that the configuration names cannot be used."""


class UsageError(TitheError):
    """The command, the configuration or a Beam option is wrong, found before anything ran."""

    exit_code = 2
