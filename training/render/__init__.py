"""Synthetic hands: labelled renderings for training and for the bundled samples.

    python -m training.render --count 6000 --out data/render/train --seed 1 --workers 16

`load_hands` reads finished shards and does not need Mitsuba.
"""

from training.render.store import LABEL_FIELDS, RenderedHands, load_hands

__all__ = ["LABEL_FIELDS", "RenderedHands", "load_hands"]
