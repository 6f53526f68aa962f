"""The two spaces, alone and in Gymnasium's vector utilities."""

import copy
import json

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import (
    batch_space,
    concatenate,
    create_empty_array,
    create_shared_memory,
    iterate,
    read_from_shared_memory,
    write_to_shared_memory,
)
from hypothesis import given
from hypothesis import strategies as st

from thinkedit.envs.spaces import ImageSpace, UnicodeText
from thinkedit.types import RGB


def image(height: int, width: int, value: int = 7) -> RGB:
    return np.full((height, width, 3), value, np.uint8)


@given(st.text())
def test_any_text_is_in_the_space_and_survives_shared_memory(text: str) -> None:
    space = UnicodeText(max_chars=max(1, len(text)))
    assert text in space
    memory = create_shared_memory(space, n=2)
    write_to_shared_memory(space, 1, text, memory)
    assert copy.deepcopy(read_from_shared_memory(space, memory, n=2)) == ("", text)


def test_what_is_no_text_is_not_in_the_space() -> None:
    space = UnicodeText(max_chars=3)
    assert "äö🎨" in space
    for other in ("four", "\ud800", b"abc", 3, None, np.array("a")):
        assert other not in space


@given(st.integers(1, 9), st.integers(1, 9))
def test_images_of_any_size_survive_shared_memory(height: int, width: int) -> None:
    space, picture = ImageSpace(max_pixels=81), image(height, width)
    assert picture in space
    memory = create_shared_memory(space, n=2)
    write_to_shared_memory(space, 0, picture, memory)
    first, second = copy.deepcopy(read_from_shared_memory(space, memory, n=2))
    assert np.array_equal(first, picture)
    assert second.size == 0


def test_what_is_no_image_is_not_in_the_space() -> None:
    space = ImageSpace(max_pixels=12)
    assert image(3, 4) in space
    for other in (image(13, 1), image(3, 4)[..., 0], image(3, 4).astype(float), image(0, 4), [[[1, 2, 3]]]):
        assert other not in space


@pytest.mark.parametrize("space", [UnicodeText(50), ImageSpace(64)])
def test_samples_lie_in_the_space_and_follow_the_seed(space: spaces.Space[object]) -> None:
    space.seed(3)
    first = [space.sample() for _ in range(20)]
    space.seed(3)
    again = [space.sample() for _ in range(20)]
    assert all(sample in space for sample in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({str(sample) for sample in first}) > 5
    with pytest.raises(ValueError, match="mask"):
        space.sample(mask=np.ones(3))


@pytest.mark.parametrize("space", [UnicodeText(50), ImageSpace(64)])
def test_samples_pass_through_json(space: spaces.Space[object]) -> None:
    samples = [space.sample() for _ in range(3)]
    back = space.from_jsonable(json.loads(json.dumps(space.to_jsonable(samples))))
    assert all(np.array_equal(a, b) for a, b in zip(samples, back, strict=True))


def test_a_batch_is_a_tuple_and_can_be_taken_apart() -> None:
    single = spaces.Dict({"picture": ImageSpace(64), "words": UnicodeText(50), "turn": spaces.Discrete(3)})
    batched = batch_space(single, 3)
    items = [{"picture": image(k + 1, 2), "words": "é" * k, "turn": np.int64(k)} for k in range(3)]
    batch = concatenate(single, items, create_empty_array(single, 3))
    assert batch in batched
    assert batch["words"] == ("", "é", "éé")
    assert [part["picture"].shape[0] for part in iterate(batched, batch)] == [1, 2, 3]
    assert create_empty_array(single, 3) in batched


def test_a_batch_in_shared_memory_shows_what_is_there_now() -> None:
    space = UnicodeText(5)
    memory = create_shared_memory(space, n=1)
    live = read_from_shared_memory(space, memory, n=1)
    for text in ("one", "two"):
        write_to_shared_memory(space, 0, text, memory)
        assert list(live) == [text]
        assert (live[0], len(live)) == (text, 1)


def test_what_does_not_fit_is_refused_and_not_cut() -> None:
    space = UnicodeText(2)
    memory = create_shared_memory(space, n=1)
    with pytest.raises(ValueError, match="3 characters"):
        write_to_shared_memory(space, 0, "abc", memory)
    with pytest.raises(ValueError, match="shape"):
        write_to_shared_memory(ImageSpace(4), 0, image(3, 3), create_shared_memory(ImageSpace(4), n=1))


def test_spaces_are_equal_by_their_bounds() -> None:
    assert UnicodeText(3) == UnicodeText(3) != UnicodeText(4)
    assert ImageSpace(3) == ImageSpace(3) != ImageSpace(4)
