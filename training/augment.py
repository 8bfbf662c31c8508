"""Augmentation in batches: the same hand turned, mirrored, in other light and in another place."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.frames import SIDELESS
from training.network import scale


class Augment(nn.Module):
    """Vary a batch of hands, each in its own way.

    Takes (N, 4, H, W) uint8 RGBA, alpha being the hand's mask, and targets (N,). Gives (N, 3, size,
    size) float, -1 … 1, and the targets: a mirrored hand is the other hand. `rooms` (M, 3, H, W) uint8,
    where set, are photographs to put hands into.

    Args:
        size: width and height of the pictures that come out; small ones are quicker to learn from.
        tilt: largest turn in the picture's plane, degrees.
        zoom: smallest and largest scale.
        shift: largest shift, as a share of the picture.
        background: share of hands put before another background.
        colour: share of grey hands given a skin tone.
        erase: share of pictures that lose a rectangle.
    """

    def __init__(
        self,
        size: int = 128,
        tilt: float = 40,
        zoom: tuple[float, float] = (0.8, 1.25),
        shift: float = 0.08,
        background: float = 0.75,
        colour: float = 0.5,
        erase: float = 0.25,
    ):
        super().__init__()
        self.size = size
        self.tilt, self.zoom, self.shift = tilt, zoom, shift
        self.background, self.colour, self.erase = background, colour, erase
        self.rooms: Tensor | None = None

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        mirrored = torch.rand(len(images), device=images.device) < 0.5
        x = self.move(images.float() / 255, mirrored)
        picture, mask = self.tone(x[:, :3]), x[:, 3:]
        behind = self.share(x, self.background)
        picture = torch.where(behind, torch.lerp(self.room(picture), picture, mask), picture)
        picture = self.camera(self.light(picture))
        return picture * 2 - 1, torch.where(mirrored, mirror(targets), targets)

    def share(self, x: Tensor, p: float) -> Tensor:
        """(N, 1, 1, 1) bool: which pictures of a batch something happens to."""
        return torch.rand(len(x), 1, 1, 1, device=x.device) < p

    def move(self, x: Tensor, mirrored: Tensor) -> Tensor:
        """Turn, scale, shear, shift and mirror; what lies outside repeats the edge."""
        n, device = len(x), x.device
        angle = uniform(n, -self.tilt, self.tilt, device) * math.pi / 180
        size = torch.exp(uniform(n, math.log(self.zoom[0]), math.log(self.zoom[1]), device))
        stretch, shear = uniform(n, 0.85, 1.18, device), uniform(n, -0.15, 0.15, device)
        cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
        side = torch.where(mirrored, -1.0, 1.0)
        dx, dy = (
            uniform(n, -2 * self.shift, 2 * self.shift, device),
            uniform(n, -2 * self.shift, 2 * self.shift, device),
        )
        rows = [cos * side, shear * cos - sin * stretch, dx, sin * side, shear * sin + cos * stretch, dy]
        shape = [n, x.shape[1], self.size, self.size]
        grid = F.affine_grid(torch.stack(rows, 1).view(n, 2, 3), shape, align_corners=False)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)

    def tone(self, picture: Tensor) -> Tensor:
        """Some grey hands get a skin tone: light follows grey, shadows are redder than lights."""
        device = picture.device
        grey = (picture[:, 0] - picture[:, 2]).abs().amax((1, 2)) < 1e-4
        chosen = grey & (torch.rand(len(picture), device=device) < self.colour)
        n = int(chosen.sum())
        depth = torch.rand(n, device=device)  # 0 dark … 1 light skin
        red = 0.45 + 0.55 * depth + uniform(n, -0.05, 0.05, device)
        green = red * uniform(n, 0.62, 0.85, device)
        blue = green * uniform(n, 0.65, 0.95, device)
        gamma = torch.tensor([0.8, 1.0, 1.1], device=device).view(1, 3, 1, 1)
        skin = torch.stack([red, green, blue], 1).view(n, 3, 1, 1) * 1.3
        picture[chosen] = picture[chosen].clamp_min(1e-3) ** gamma * skin
        return picture

    def room(self, picture: Tensor) -> Tensor:
        """Something else to stand before: a wall in a calm colour, soft shapes, blocks and edges."""
        n, _, height, width = picture.shape
        device = picture.device
        wall = torch.rand(n, 1, 1, 1, device=device) + torch.randn(n, 3, 1, 1, device=device) * 0.12
        for cells, most in ((2, 0.3), (4, 0.25), (9, 0.15), (24, 0.08)):
            strength = torch.rand(n, 1, 1, 1, device=device) ** 2 * most
            shapes = torch.randn(n, 1, cells, cells, device=device) + 0.5 * torch.randn(
                n, 3, cells, cells, device=device
            )
            smooth = "bilinear" if torch.rand(()) < 0.5 else "nearest"
            wall = wall + strength * F.interpolate(shapes, (height, width), mode=smooth)
        if self.rooms is None:
            return wall.clamp(0, 1)
        photographs = self.rooms[torch.randint(len(self.rooms), (n,))].to(device).float() / 255
        photographs = F.interpolate(photographs, (height, width), mode="bilinear")
        return torch.where(self.share(picture, 0.65), photographs, wall.clamp(0, 1))

    def light(self, x: Tensor) -> Tensor:
        """Exposure, contrast, gamma, white balance, a lamp from one side."""
        n, device = len(x), x.device
        gain = torch.exp(uniform(n, -0.5, 0.4, device)).view(n, 1, 1, 1)
        white = torch.exp(torch.randn(n, 3, 1, 1, device=device) * 0.08)
        gamma = torch.exp(uniform(n, -0.35, 0.35, device)).view(n, 1, 1, 1)
        lamp = F.interpolate(torch.randn(n, 1, 2, 2, device=device) * 0.15, x.shape[2:], mode="bilinear") + 1
        contrast, middle = uniform(n, 0.7, 1.3, device).view(n, 1, 1, 1), x.mean((1, 2, 3), keepdim=True)
        x = ((x - middle) * contrast + middle).clamp(1e-3, 1)
        x = x**gamma * gain * white * lamp
        return torch.where(self.share(x, 0.15), x.mean(1, keepdim=True), x).clamp(0, 1)

    def camera(self, x: Tensor) -> Tensor:
        """Blur or few pixels, grain, something in front of the hand."""
        n, _, height, width = x.shape
        few = F.interpolate(x, scale_factor=float(torch.empty(1).uniform_(0.25, 0.9)), mode="bilinear", antialias=False)
        x = torch.where(self.share(x, 0.3), F.interpolate(few, (height, width), mode="bilinear"), x)
        x = x + torch.randn_like(x[:, :1]) * (self.share(x, 0.5) * uniform(n, 0, 0.06, x.device).view(n, 1, 1, 1))
        rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        centre, half = torch.rand(n, 2, 1, device=x.device), uniform(2 * n, 0.05, 0.15, x.device).view(n, 2, 1)
        inside = (rows / height - centre[:, 0]).abs() < half[:, 0]
        inside = inside[:, :, None] & ((columns / width - centre[:, 1]).abs() < half[:, 1])[:, None, :]
        x = torch.where(inside[:, None] & self.share(x, self.erase), torch.rand(n, 3, 1, 1, device=x.device), x)
        return x.clamp(0, 1)


def uniform(n: int, low: float, high: float, device: torch.device) -> Tensor:
    """(n,) float, evenly between `low` and `high`."""
    return torch.empty(n, device=device).uniform_(low, high)


def mirror(targets: Tensor) -> Tensor:
    """The classes of the same hands seen in a mirror: as many fingers, the other side where it is known."""
    return torch.where(targets < SIDELESS, (targets + 6) % 12, targets)


def plain(images: Tensor, size: int) -> Tensor:
    """The same batch without any change but size: (N, 4, H, W) uint8 RGBA to (N, 3, size, size) float, -1 … 1."""
    return scale(F.interpolate(images[:, :3].float(), (size, size), mode="bilinear", antialias=True))
