"""The package's exceptions. Each message is one sentence: what was got, what was wanted, what to do."""


class BroadsheetError(Exception):
    """Anything that Broadsheet reports to its user; the command line prints the message and exits with 2."""


class InputError(BroadsheetError):
    """A value, name or option that the user gave is wrong."""


class NotFoundError(InputError):
    """A name stands for nothing here: no such paper, topic, job, page."""


class DataError(InputError):
    """A file is not what it should be: wrong format, damaged, truncated, too large."""


class UntrustedError(DataError):
    """A file would have to be trusted to be read (a pickle, an archive that leaves its folder)."""


class MissingDataError(InputError):
    """Data that cannot be shipped is needed; the message says where to get it and where to put it."""


class MissingExtraError(InputError):
    """An optional dependency is needed; the message says what to install."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': in your checkout of Broadsheet, pip install '.[{extra}]'.")


class SourceError(BroadsheetError):
    """A live source (the Hub, arXiv) could not be read; nothing was changed."""


class StoreError(BroadsheetError):
    """The store of runs could not be read or written."""


class JobError(BroadsheetError):
    """A job could not be run to its end."""


class CompositionError(BroadsheetError, ValueError):
    """Systems do not fit together: time steps differ, or a loop has no delay."""


class EventOverflowError(BroadsheetError, RuntimeError):
    """More events arrived in one step than the event-driven part was sized for."""
