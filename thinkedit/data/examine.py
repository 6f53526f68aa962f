"""What becomes of one trajectory by itself: the filter, then its samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from thinkedit.configs.schema import DataConfig
from thinkedit.data.formats.trajectories import Trajectory
from thinkedit.data.rules import overlap
from thinkedit.data.rules.fates import Fate, Fault
from thinkedit.data.rules.graded import graded_prefix
from thinkedit.data.rules.keep import refused
from thinkedit.data.rules.sanity import reply
from thinkedit.data.rules.truncate import truncated
from thinkedit.data.rules.unroll import Sample, unrolled
from thinkedit.envs.images import read_rgb
from thinkedit.envs.protocol import Protocol
from thinkedit.errors import DataError

_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


@dataclass(frozen=True, slots=True)
class Examiner:
    """The rules for one trajectory with their settings."""

    config: DataConfig
    protocol: Protocol

    def kept(self, trajectory: Trajectory) -> Trajectory | Fate:
        """The trajectory from its first to its best edit, or why the filter drops it."""
        graded = graded_prefix(trajectory)
        if graded is None:
            return Fate.UNGRADED
        config = self.config
        reason = refused(graded, keep_immediate_success=config.keep_immediate_success, good_at=config.good_at)
        return reason or truncated(graded)

    def samples(self, kept: Trajectory) -> Iterator[tuple[Sample, str | Fault]]:
        """A kept trajectory's samples, each with its reply or with what keeps it out of SFT."""
        poor_at, perfect_at = self.config.poor_at, self.config.perfect_at
        for sample in unrolled(kept):
            yield sample, reply(sample, self.protocol, poor_at=poor_at, perfect_at=perfect_at)


class Exclusion:
    """Whether source images look like pictures that must not be trained on.

    Args:
        places: image files, and folders whose image files count, at any depth.
        distance: bits of 64 in which the hashes of two such pictures differ at most.

    Raises:
        DataError: no such place, a folder without images, or a file that is no image.
    """

    def __init__(self, places: list[str], distance: int) -> None:
        self._hashes = overlap.hashes(read_rgb(path) for place in places for path in _images(Path(place)))
        self._distance = distance
        self._known = lru_cache(2**15)(self._look)

    def __call__(self, path: str) -> bool:
        """
        Raises:
            DataError: the file is no image.
        """
        return bool(len(self._hashes)) and self._known(path)

    def _look(self, path: str) -> bool:
        return overlap.resembles(read_rgb(path), self._hashes, distance=self._distance)


def _images(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    found = sorted(path for path in place.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise DataError(f"data.exclude_images: {place} holds no image file")
    return found
