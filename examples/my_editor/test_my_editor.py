"""Everything that thinkedit asks of an editor."""

from my_editor import PoliteConfig, PoliteEditor

from thinkedit.envs.world import Item, Scene, render
from thinkedit.testing import EditorContract


class TestPoliteEditor(EditorContract):
    def make(self):
        return PoliteEditor(PoliteConfig())

    def source(self):
        return render(Scene((Item(0, "big", "red", "star"), Item(4, "small", "blue", "square"))))
