"""From a seed to a picture."""

import numpy as np

from training.render import sample as chance
from training.render.hand import FOREARM, Rig, load_rig, skin
from training.render.people import rig_of, sample_person
from training.render.scene import SIZE, Camera, Picture, render


def draw_hand(
    rig: Rig,
    hand: chance.Hand,
    seed: int,
    size: int = SIZE,
    samples: int = 9,
    margin: float = 0.25,
    camera: Camera | None = None,
) -> Picture:
    """Renders a hand; `seed` is for the ray tracer's noise."""
    points, frames = skin(rig, hand.shape, hand.pose)
    forearm = frames[FOREARM] @ np.linalg.inv(rig.joints[FOREARM])
    return render(
        rig,
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
        camera=camera,
    )


def draw(seed: int, index: int, people: bool = False, tones: bool = False) -> tuple[chance.Hand, Picture]:
    """Hand number `index` of a seed, and its picture: the one hand varied, or somebody's own.

    With `tones`, every ten are one hand in the ten tones of the Monk scale, lightest first.
    """
    index, tone = (index // 10, index % 10 + 1) if tones else (index, None)
    rig = rig_of(sample_person(np.random.default_rng((seed, index, 1)))) if people else load_rig()
    hand = chance.sample(seed, index, rig, tone)
    return hand, draw_hand(rig, hand, seed=index)
