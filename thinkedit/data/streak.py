"""Notices when everything fails, which is a service that is down and not the fault of a task."""

from __future__ import annotations

from thinkedit.errors import ConfigError, ThinkEditError


class ServiceDown(ThinkEditError):
    """Item after item failed: most likely an editor, a judge or an expert is down."""


class Streak:
    """Counts failures in a row.

    Args:
        most: so many end the work.

    Raises:
        ConfigError: `most` is below 1.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ConfigError(f"failures in a row that end the work must be at least 1, got {most}")
        self._most, self._count = most, 0

    def succeeded(self) -> None:
        self._count = 0

    def failed(self, detail: str) -> None:
        """
        Raises:
            ServiceDown: that was one too many.
        """
        self._count += 1
        if self._count >= self._most:
            raise ServiceDown(
                f"{self._count} in a row failed, the last one with: {detail}. What was finished is kept: "
                "mend the service and run the same command again"
            )
