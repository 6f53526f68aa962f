"""An editor with a thinker, ready for one picture after another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from thinkedit.actors.inference.loop import Run, silent
from thinkedit.actors.inference.records import EditResult, Event, Options
from thinkedit.actors.inference.thinkers import PolicyThinker, Thinker
from thinkedit.actors.policy import ScriptedPolicy, VLLMPolicy
from thinkedit.configs.load import PACKAGE, load_config
from thinkedit.configs.schema import Config
from thinkedit.envs.build import Parts
from thinkedit.envs.images import read_rgb
from thinkedit.envs.services import Services
from thinkedit.envs.world.experts import EXPERTS
from thinkedit.errors import ConfigError, UnknownName
from thinkedit.types import RGB

POLICY, SERVER = "policy", "server"
_BASE = PACKAGE / "learner" / "policy" / "base"


@dataclass(frozen=True, slots=True, eq=False)
class ThinkingEditor:
    """Edits pictures one after another, or several at a time; `open_thinking_editor` makes one."""

    config: Config
    services: Services
    thinker: Thinker

    def options(
        self,
        *,
        mode: str | None = None,
        select: str | None = None,
        turns: int | None = None,
        seed: int | None = None,
    ) -> Options:
        """What a run is asked for; what is None is as the configuration says.

        Raises:
            UnknownName, ConfigError: see `Options`; or the thinker can't be asked so.
        """
        config = self.config
        options = Options.named(
            config.inference.mode if mode is None else mode,
            config.inference.select if select is None else select,
            turns=config.episode.max_turns if turns is None else turns,
            seed=config.seed if seed is None else seed,
        )
        self.thinker.for_mode(options.mode)
        return options

    def prepare(self, source: RGB) -> RGB:
        """The picture as the run shall see it: as it is, or cut and scaled to `inference.size`."""
        if self.config.inference.size is None:
            return source
        fitted = ImageOps.fit(Image.fromarray(source), parse_size(self.config.inference.size))
        return np.array(fitted)

    async def edit(
        self,
        source: RGB,
        instruction: str,
        options: Options | None = None,
        *,
        tell: Callable[[Event], None] = silent,
        stop: asyncio.Event | None = None,
    ) -> EditResult:
        """One run; see `Run.play` for what it returns and raises.

        Args:
            source: uint8, (H, W, 3).
            tell: called with each event as it happens.
            stop: set it to end the run with what there is.
        """
        options = options or self.options()
        thinker = self.thinker.for_mode(options.mode)
        run = Run(
            self.services,
            thinker,
            self.prepare(source),
            instruction,
            options,
            tell=tell,
            about=self._about(thinker, options),
        )
        return await run.play(stop)

    def _about(self, thinker: Thinker, options: Options) -> dict[str, Any]:
        editor, judge = self.services.editor, self.services.judge
        about: dict[str, Any] = {
            "editor": {"name": editor.name, "revision": editor.revision, "settings": dict(editor.settings())},
            "thinker": dict(thinker.about()),
        }
        if options.select == "best_judge":
            about["judge"] = {"name": judge.name, "revision": judge.revision}
        return about


@asynccontextmanager
async def open_thinking_editor(config: Config) -> AsyncIterator[ThinkingEditor]:
    """Build editor, judge and thinker; a policy of ours starts its vLLM engine here.

    Raises:
        ConfigError, UnknownName: a part that nobody knows, or values that can't work.
        PolicyError: the policy's folder can't be loaded.
    """
    if config.inference.size is not None:
        parse_size(config.inference.size)
    parts = Parts.from_config(config)
    try:
        async with _thinker(config, parts) as thinker:
            services = Services(parts.editor, parts.judge, config.editor.timeout_s, config.judge.timeout_s)
            thinking = ThinkingEditor(config, services, thinker)
            thinking.options()  # a mode that can't work is better told before the first picture
            yield thinking
    finally:
        parts.close()


@asynccontextmanager
async def _thinker(config: Config, parts: Parts) -> AsyncIterator[Thinker]:
    name, tries = config.inference.thinker, config.inference.tries
    if name in EXPERTS:
        scripted = ScriptedPolicy(EXPERTS[name].from_parts(parts), seed=config.seed)
        yield PolicyThinker(scripted, parts.protocol, {"name": name}, tries)
    elif name == SERVER:
        from thinkedit.actors.inference.chat import Chat
        from thinkedit.actors.inference.expert import ServerThinker

        chat = Chat(config.inference.server)
        try:
            yield ServerThinker(chat, parts.protocol, tries)
        finally:
            await chat.close()
    elif name == POLICY:
        path, temperature = config.policy.path, config.eval.temperature
        _check_taught(path)
        about = {"name": POLICY, "path": path, "temperature": temperature, "top_p": config.rollout.top_p}
        async with VLLMPolicy(
            path, parts.protocol, config.policy, config.rollout, config.cluster, temperature=temperature
        ) as policy:
            # At temperature 0 every try would give the same reply.
            yield PolicyThinker(policy, parts.protocol, about, tries if temperature > 0 else 1)
    else:
        raise UnknownName("inference.thinker", name, [POLICY, SERVER, *EXPERTS])


def _check_taught(path: str) -> None:
    if Path(path).resolve() == _BASE.resolve():
        raise ConfigError(
            "the tiny base that comes with thinkedit has not learned to critique: name a trained policy "
            "(policy.path=runs/demo/sft/policy), a server (inference.thinker=server) or, for pictures of "
            "the built-in world, inference.thinker=naive_expert"
        )


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of "WIDTHxHEIGHT".

    Raises:
        ConfigError: it doesn't look like that.
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ConfigError(f"inference.size={text!r}: must look like 1024x768")
    return int(width), int(height)


def edit_picture(
    picture: RGB | str | PathLike[str],
    instruction: str,
    *,
    config: Config | str | Path = "demo",
    overrides: Sequence[str] = (),
    tell: Callable[[Event], None] = silent,
) -> EditResult:
    """Think-while-edit on one picture, from start to end. Within a running event loop use
    `open_thinking_editor` and `await` its `edit`; so too for many pictures, since this one opens
    editor and thinker anew each time.

    Args:
        picture: a file, or uint8 of shape (H, W, 3).
        config: a configuration, or the name or file of a recipe.
        overrides: `KEY=VALUE` on top of it, where it is a name or a file.

    Raises:
        DataError: no readable picture, or an empty instruction.
        ConfigError, UnknownName: see `open_thinking_editor`.
        ServiceError, ThinkerError, SelectionFailed: see `Run.play`.
    """
    source = picture if isinstance(picture, np.ndarray) else read_rgb(picture)
    loaded = config if isinstance(config, Config) else load_config(config, overrides)

    async def run() -> EditResult:
        async with open_thinking_editor(loaded) as thinking:
            return await thinking.edit(source, instruction, tell=tell)

    return asyncio.run(run())
