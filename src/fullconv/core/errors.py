"""The one kind of error a user meets: what was found, where, what was expected, a line to paste.

Anything else that escapes is a bug of ours (exit code 2 on the command line).
"""

from __future__ import annotations


class FullconvError(Exception):
    """A mistake the user can fix.

    Args:
        message: what was found, where, and what was expected; one or more sentences.
        hint: a command or a line to paste that mends it; may be empty.

    >>> print(FullconvError("no folder 'data'.", "fullconv check data"))
    no folder 'data'.
      try: fullconv check data
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  try: {self.hint}" if self.hint else self.message


class UnwrittenError(FullconvError):
    """A result that cannot be written, so that there is no use in going on with others."""


class StoppedError(FullconvError):
    """No mistake at all: it was asked to stop, and can go on by the line in the hint."""


class DownloadError(FullconvError):
    """What the same command may not meet another time.

    Args:
        message, hint: see `FullconvError`.
        again: the command in the hint; the command line puts there what was typed.
    """

    def __init__(self, message: str, hint: str, again: str) -> None:
        super().__init__(message, hint)
        self.again = again

    def typed(self, line: str) -> FullconvError:
        """The same, with the command that was typed in its hint."""
        return FullconvError(self.message, self.hint.replace(self.again, line))
