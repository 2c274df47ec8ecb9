"""The errors a user can cause; each carries ONE message: what was given, what is accepted, what to do."""


class LSVCRError(Exception):
    """Base class; the command line prints its message on one line and exits with a non-zero status."""


class ConfigError(LSVCRError):
    """A configuration key or value that cannot be used."""


class DataError(LSVCRError):
    """A data set folder, atomic file or split that cannot be used."""


class StoreError(LSVCRError):
    """A text store or a text encoder that cannot be used."""


class CheckpointError(LSVCRError):
    """A checkpoint that is missing, unsafe, damaged, or of another model or data set."""


class EvaluationError(LSVCRError):
    """Scores that cannot be ranked (NaN, infinite) or a protocol that cannot be carried out."""


class AlignmentError(LSVCRError):
    """Alignment that cannot go on: a loss that is not finite."""
