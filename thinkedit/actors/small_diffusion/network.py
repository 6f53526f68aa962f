"""The editor's network: from a noisy picture, the source and a prompt to the clean picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from thinkedit.actors.small_diffusion.tokenizer import MAX_TOKENS

PATCH = 4
"""Pixels a side of what the outermost convolutions see as one."""
COARSE = 6
"""Places a side where picture and prompt meet: 2 x 2 for each cell of the world."""

_GATE_BIAS = -2.0  # an untrained gate lets most of the source through


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """B prompts as the network read them; one reading serves all steps of an edit.

    words: (B, T, text width); padding: (B, T), True where there is no word; gist: (B, text width).
    """

    words: Tensor
    padding: Tensor
    gist: Tensor


class EditNetwork(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers is untyped
    """A U-Net of two levels, 24 x 24 and 12 x 12, over a transformer of 6 x 6 places and the words.

    Prompt and noise level steer the convolutions too (FiLM). The outcome is the source with new
    pixels let in by a gate, so what stays as it is needs no drawing.

    Args:
        vocabulary: number of tokens.
        channels: of the two levels.
        width, layers: of the transformer over places and words.
        text_width, text_layers: of the transformer that reads the words first.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        vocabulary: int,
        channels: tuple[int, int] = (32, 96),
        width: int = 160,
        layers: int = 3,
        text_width: int = 128,
        text_layers: int = 2,
    ) -> None:
        super().__init__()
        fine, middle = channels
        self.embed = nn.Embedding(vocabulary, text_width)
        self.order = nn.Parameter(0.1 * torch.randn(MAX_TOKENS, text_width))
        self.reader = _transformer(text_width, text_layers)
        self.waves = Timesteps(32, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.noise = TimestepEmbedding(32, text_width)

        self.inlet = nn.Conv2d(2 * 3 * PATCH**2, fine, 1)
        self.shrink = nn.Conv2d(fine, middle, 2, stride=2)
        self.look = FiLMBlock(middle, text_width)
        self.gather = nn.Conv2d(middle, width, 2, stride=2)
        self.places = nn.Parameter(0.3 * torch.randn(COARSE**2, width))
        self.told = nn.Linear(text_width, width)
        self.steered = nn.Linear(text_width, width)
        self.planner = _transformer(width, layers)
        self.spread = nn.ConvTranspose2d(width, middle, 2, stride=2)
        self.sketch = FiLMBlock(middle, text_width)
        self.enlarge = nn.ConvTranspose2d(middle, fine, 2, stride=2)
        self.paint = FiLMBlock(fine, text_width)
        self.outlet = nn.Sequential(nn.GroupNorm(8, fine), nn.SiLU(), nn.Conv2d(fine, 4 * PATCH**2, 1))

    def read(self, tokens: Tensor, mask: Tensor) -> Reading:
        """
        Args:
            tokens: (B, T) ids, T at most `MAX_TOKENS`.
            mask: (B, T), 0 for padding; every row has a token.
        """
        padding = mask == 0
        words = self.reader(self.embed(tokens) + self.order[: tokens.shape[1]], src_key_padding_mask=padding)
        counted = mask[..., None].to(words.dtype)
        return Reading(words, padding, (words * counted).sum(1) / counted.sum(1))

    def forward(self, noisy: Tensor, source: Tensor, sigma: Tensor, reading: Reading) -> Tensor:
        """The clean picture that a noisy one comes from.

        Args:
            noisy: (B, 3, 96, 96), sigma * noise + (1 - sigma) * picture.
            source: (B, 3, 96, 96) in [-1, 1].
            sigma: (B,) in [0, 1].

        Returns:
            (B, 3, 96, 96), pixels of about [-1, 1].
        """
        steer = F.silu(reading.gist + self.noise(self.waves(1000 * sigma).to(source.dtype)))
        patches = F.pixel_unshuffle(torch.cat([noisy, source], 1), PATCH)
        fine = self.inlet(patches.contiguous(memory_format=torch.channels_last))  # a third less time on CPU
        middle = self.look(self.shrink(fine), steer)
        middle = self.sketch(middle + self.spread(self._plan(self.gather(middle), steer, reading)), steer)
        fine = self.paint(fine + self.enlarge(middle), steer)
        layers = F.pixel_shuffle(self.outlet(fine), PATCH)
        gate = torch.sigmoid(layers[:, 3:] + _GATE_BIAS)
        drawn: Tensor = source + gate * (layers[:, :3] - source)
        return drawn

    def _plan(self, coarse: Tensor, steer: Tensor, reading: Reading) -> Tensor:
        """What is to be where, (B, width, 6, 6): places and words attend to each other."""
        places = coarse.flatten(2).transpose(1, 2) + self.places + self.steered(steer)[:, None]
        seen = torch.zeros(places.shape[:2], dtype=torch.bool, device=places.device)
        everything = self.planner(
            torch.cat([places, self.told(reading.words)], 1),
            src_key_padding_mask=torch.cat([seen, reading.padding], 1),
        )
        planned: Tensor = everything[:, : COARSE**2]
        return planned.transpose(1, 2).reshape(coarse.shape)


class FiLMBlock(nn.Module):
    """A residual block whose features the prompt scales and shifts (Perez et al. 2018)."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.film = nn.Linear(condition, 2 * channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """(B, channels, H, W), steered by (B, condition)."""
        scale, shift = self.film(condition)[..., None, None].chunk(2, 1)
        steered = F.silu(self.norm(features) * (1 + scale) + shift)
        changed: Tensor = features + self.second(F.silu(self.first(steered)))
        return changed


def _transformer(width: int, layers: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
