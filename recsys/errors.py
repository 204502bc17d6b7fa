"""What can be refused. Each message says what was wrong, where, and what to do."""


class RecsysError(Exception):
    """A refusal that a person can act on; commands exit with ``exit_code``.

    Args:
        message: what was wrong, where, and what to do.
        transient: whether the same call may succeed later with nothing changed, so that a flow
            tries again: storage over a network, say.
    """

    exit_code = 1

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class ConfigurationError(RecsysError):
    """A setting, parameter or mapping is wrong; nothing was written for its sake."""

    exit_code = 2


class SourceError(RecsysError):
    """The source is missing, unreadable, or not of the shape that the mapping says."""


class EmptySourceError(SourceError):
    """A source holds no row."""


class ContractError(RecsysError):
    """A batch broke its contract and was refused whole."""


class BrokenCheckError(RecsysError):
    """A check itself failed to run; nothing is known about the data."""


class LakeError(RecsysError):
    """The lake can't be read or written, or lacks what was asked of it."""


class MissingError(LakeError):
    """Something is proven not to be in the lake: its store answered, and it is not there."""


class DamagedError(LakeError):
    """Something of the lake was read whole, and does not hold what it should."""


class GateError(RecsysError):
    """The model or the lists did not pass the gate that stands before publication."""


class SinkError(RecsysError):
    """Lists could not be delivered to a place besides the lake; those in the lake are served."""


class TimeLimitError(RecsysError):
    """A run took longer than it may, and was stopped."""
