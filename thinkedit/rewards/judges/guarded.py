"""A judge with guards: edits that please it for the wrong reason are flagged, and held down if asked."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import logging
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from thinkedit.configs.schema import PluginConfig
from thinkedit.errors import ConfigError, UnknownName
from thinkedit.rewards.judges import picture_checks
from thinkedit.rewards.judges.base import Judge
from thinkedit.rewards.judges.checked import check_question, checked_verdict
from thinkedit.rewards.judges.outer import OuterJudge, account, built, described
from thinkedit.types import RGB, SCORE_MAX, SCORE_MIN, JudgeIdentity, Scores, Verdict

log = logging.getLogger(__name__)

ACTIONS = ("off", "flag", "cap")
FLAGS = "flags"
"""Key of `Verdict.notes` under which the names of the guards that fired are listed."""

_WANTS_TEXT = re.compile(
    r"[\"“”«»「『]|\b(text|words?|letters?|letterings?|captions?|titles?|headlines?|subtitles?|slogans?|signs?|"
    r"labels?|logos?|watermarks?|fonts?|numbers?|digits?|dates?|names?|writ\w+|wrote|says?|saying|reads?|"
    r"posters?|quotes?|speech|print\w*|engrav\w+|graffiti|tattoos?)\b|[字文写標标题題]",
    re.IGNORECASE,
)
_WANTS_COPIES = re.compile(
    r"\b(collages?|grids?|tiles?|tiled|tiling|panels?|split|side by side|before and after|comparison|"
    r"repeat\w*|copy|copies|duplicat\w+|mosaic|mirror\w*|kaleidoscop\w+|contact sheet)\b",
    re.IGNORECASE,
)


@dataclass
class GuardedConfig:
    """Each guard is "off", "flag" (told in the notes) or "cap" (told, and semantic held at `ceiling`)."""

    judge: PluginConfig = field(default_factory=PluginConfig)  # its name and its options
    unchanged: str = "cap"  # the edit is the source
    copied: str = "cap"  # the edit is a collage with the whole source in it
    text: str = "flag"  # a line of writing that the source has not and nobody asked for
    ceiling: float = 0.0
    unchanged_below: float = 4.0  # of 255: mean change of the 8 x 8 block that changed most
    constant_after: int = 64  # different edits in a row with the same two scores; 0: not looked for


class GuardedJudge(OuterJudge):
    """Asks another judge and looks at the pixels itself; see docs/judges.md for what each guard sees.

    `notes["flags"]` lists the guards that fired, `notes["judge"]` is the inner verdict. Only
    `semantic` is ever lowered: these edits don't do what was asked, however good they look.

    Args:
        inner: in the place of the one that `config.judge` names.
    """

    Config: ClassVar[type[GuardedConfig]] = GuardedConfig
    name = "guarded"
    revision = "1"  # of the checks: raise it when the same pictures get other flags

    def __init__(self, config: GuardedConfig, inner: Judge | None = None) -> None:
        """
        Raises:
            ConfigError, UnknownName: a value that can't work, or no scipy for the text guard.
        """
        _check(config)
        super().__init__([built(config.judge) if inner is None else inner])
        self._config = config
        self._guard_id = f"{self.name}@{self.revision}"
        self._recent: deque[tuple[bytes, Scores]] = deque(maxlen=config.constant_after)
        self._constant = False

    async def judge_async(self, source: RGB, edited: RGB, instruction: str) -> Verdict:
        check_question(source, edited, instruction)
        inner = self.inner[0]
        verdict = checked_verdict(await inner.judge_async(source, edited, instruction), inner.name)
        flags = await asyncio.to_thread(self._flags, source, edited, instruction)
        capped = any(getattr(self._config, flag) == "cap" for flag in flags)
        constant = self._is_constant(edited, verdict.scores)
        if constant:
            flags["constant"] = self._config.constant_after
        scores = verdict.scores
        if capped:
            scores = Scores(min(scores.semantic, self._config.ceiling), scores.quality)
        judge_id, prompt_hash = self._identity(verdict.identity)
        notes = {FLAGS: list(flags), "found": flags, "judge": account(verdict)}
        return Verdict(
            scores=scores,
            judge_id=judge_id,
            prompt_hash=prompt_hash,
            notes=notes,
            lasting=verdict.lasting and not constant,  # that flag is of this process and this hour
        )

    def identities(self) -> frozenset[JudgeIdentity] | None:
        known = self.inner[0].identities()
        return None if known is None else frozenset(map(self._identity, known))

    def settings(self) -> Mapping[str, Any]:
        return {**self._marking(), "judge": described(self.inner[0])}

    def _marking(self) -> dict[str, Any]:
        """Every setting that may move a score or a flag of one edit."""
        return {k: v for k, v in asdict(self._config).items() if k not in ("judge", "constant_after")}

    def _identity(self, inner: JudgeIdentity) -> JudgeIdentity:
        judge_id, prompt_hash = inner
        told = json.dumps([self._marking(), prompt_hash], sort_keys=True)
        return f"{self._guard_id}({judge_id})", hashlib.sha256(told.encode()).hexdigest()[:16]

    def _flags(self, source: RGB, edited: RGB, instruction: str) -> dict[str, Any]:
        """What each guard found, as JSON, by its name."""
        config, found = self._config, dict[str, Any]()
        if config.unchanged != "off":
            change = picture_checks.largest_change(source, edited)
            if change < config.unchanged_below:
                return {"unchanged": change}  # so it shows nothing new either
        if config.copied != "off" and not _WANTS_COPIES.search(instruction):
            grid = picture_checks.tiled(source, edited)
            if grid is not None:
                found["copied"] = list(grid)
        if config.text != "off" and not _WANTS_TEXT.search(instruction):
            box = picture_checks.new_text(source, edited)
            if box is not None:
                found["text"] = list(box)
        return found

    def _is_constant(self, edited: RGB, scores: Scores) -> bool:
        """Whether the last `constant_after` different edits all got these scores, in this process."""
        after = self._config.constant_after
        if after == 0:
            return False
        picture = hashlib.blake2b(edited.tobytes(), digest_size=8).digest()
        if all(picture != other for other, _ in self._recent):
            self._recent.append((picture, scores))
        was = self._constant
        self._constant = len(self._recent) == after and all(old == scores for _, old in self._recent)
        if self._constant and not was:
            log.warning(
                "judge %r gave the last %d different edits the same scores, semantic %g and quality %g: "
                "look at its raw replies, and at the edits",
                self.inner[0].name,
                after,
                scores.semantic,
                scores.quality,
            )
        return self._constant


def _check(config: GuardedConfig) -> None:
    for name in ("unchanged", "copied", "text"):
        action = getattr(config, name)
        if action not in ACTIONS:
            raise UnknownName(f"action of the guard {name}", action, ACTIONS)
    if not SCORE_MIN <= config.ceiling <= SCORE_MAX:
        raise ConfigError(f"ceiling={config.ceiling}: must lie in [0, 10], as scores do")
    if not config.unchanged_below > 0:
        raise ConfigError(
            f"unchanged_below={config.unchanged_below}: must be above 0, or nothing is below it"
        )
    if config.constant_after != 0 and config.constant_after < 2:
        raise ConfigError(f"constant_after={config.constant_after}: must be 2 or more; 0 to look for none")
    if config.text != "off" and importlib.util.find_spec("scipy") is None:
        raise ConfigError("the text guard needs scipy: pip install 'thinkedit[judge]', or set text: off")
