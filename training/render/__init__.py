"""Hands that never were: rendered pictures with their truth, for training and as bundled samples.

    python -m training.render --count 6000 --out data/render/train --seed 1 --workers 16

`load` gives training the finished pictures, without needing Mitsuba.
"""

from training.render.store import TRUTH, RenderedHands, load

__all__ = ["TRUTH", "RenderedHands", "load"]
