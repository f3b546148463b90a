"""The one exception that is shown to the user as it is, and the kinds of it that programs tell apart."""


class PlaygroundError(Exception):
    """A sentence for the user: what was given, and what would work.

    Raised where the value is used. The UI shows it as an error, the CLI prints it and exits with 1;
    any other exception is a fault of ours and stays loud in the log.
    """


class TooLong(PlaygroundError):
    """A prompt past what its model reads; a server says that with a code of its own."""


class Busy(PlaygroundError):
    """Nothing is wrong but the moment: the same request may work a little later."""
