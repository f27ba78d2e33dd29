"""What goes wrong for reasons a user can mend. Every message says what, which value, and what to do next.

The command line prints such an error without a traceback and exits with status 2; anything else is a defect of ours.
"""


class WholebodyError(Exception):
    """Base of all errors that a user can act upon."""


class BadInput(WholebodyError):
    """A picture, box list, body file, checkpoint or option cannot be used as given."""


class AssetMissing(WholebodyError):
    """A file that has to be fetched or registered for is not where it was looked for."""


class OutputError(WholebodyError):
    """A result could not be written: no permission, a full disk, a file in the way."""


class PartlyDone(WholebodyError):
    """What could be done is done and written; the message names what could not."""

    exit_status = 1
