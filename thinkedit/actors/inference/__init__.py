"""Think-while-edit on one's own pictures: `edit_picture` for one, `open_thinking_editor` for many."""

from thinkedit.actors.inference.folder import save
from thinkedit.actors.inference.loop import Run
from thinkedit.actors.inference.records import (
    Attempt,
    EditResult,
    Event,
    Mode,
    Options,
    RunStopped,
    Select,
    SelectionFailed,
    Stop,
    ThinkerError,
    ThinkerUnreadable,
    Thought,
)
from thinkedit.actors.inference.sheet import contact_sheet
from thinkedit.actors.inference.thinkers import Thinker
from thinkedit.actors.inference.thinking_editor import ThinkingEditor, edit_picture, open_thinking_editor

__all__ = [
    "Attempt",
    "EditResult",
    "Event",
    "Mode",
    "Options",
    "Run",
    "RunStopped",
    "Select",
    "SelectionFailed",
    "Stop",
    "Thinker",
    "ThinkerError",
    "ThinkerUnreadable",
    "ThinkingEditor",
    "Thought",
    "contact_sheet",
    "edit_picture",
    "open_thinking_editor",
    "save",
]
