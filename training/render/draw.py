"""From a seed to a picture."""

import numpy as np

from training.render import sample as chance
from training.render.hand import FOREARM, load_rig, skin
from training.render.scene import SIZE, Picture, render


def draw_hand(hand: chance.Hand, seed: int, size: int = SIZE, samples: int = 9, margin: float = 0.25) -> Picture:
    """Renders a hand; `seed` is for the ray tracer's noise."""
    rig = load_rig()
    points, frames = skin(rig, hand.shape, hand.pose)
    forearm = frames[FOREARM] @ np.linalg.inv(rig.joints[FOREARM])
    return render(
        points,
        forearm,
        mirrored=hand.right,
        skin=hand.skin,
        sleeve=hand.sleeve,
        light=hand.light,
        view=hand.view,
        seed=seed,
        size=size,
        samples=samples,
        margin=margin,
    )


def draw(seed: int, index: int) -> tuple[chance.Hand, Picture]:
    """Hand number `index` of a seed, and its picture."""
    hand = chance.sample(seed, index, load_rig())
    return hand, draw_hand(hand, seed=index)
