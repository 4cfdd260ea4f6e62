"""The errors that a user can fix: what was found, where, what was expected, and a line to paste.

Any other exception that escapes is a bug in Fullconv (exit code 70 on the command line).
"""

from __future__ import annotations


class FullconvError(Exception):
    """A mistake that the user can fix.

    Args:
        message: what was found, where, and what was expected; one or more sentences.
        hint: a command or a line to paste that fixes it; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  try: {self.hint}" if self.hint else self.message


class UnwrittenError(FullconvError):
    """A result could not be written, so that the remaining ones need not be computed."""


class StoppedError(FullconvError):
    """The user interrupted a command that can be continued with the command in the hint."""


class DownloadError(FullconvError):
    """A download failed, and the same command may succeed later.

    Args:
        message, hint: see `FullconvError`.
        again: the command in the hint; the command line replaces it by what was typed.
    """

    def __init__(self, message: str, hint: str, again: str) -> None:
        super().__init__(message, hint)
        self.again = again

    def typed(self, line: str) -> FullconvError:
        """Return the error with the command that was typed in its hint."""
        return FullconvError(self.message, self.hint.replace(self.again, line))
