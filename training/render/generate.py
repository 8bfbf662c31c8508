"""Generate a rendered hand from a seed."""

import numpy as np

from training.render.hand import FOREARM, Rig, load_rig, pose_mesh
from training.render.kind import GENERIC, Kind
from training.render.people import person_rig, sample_person
from training.render.sampling import HandParams, sample_hand
from training.render.scene import SIZE, Framing, Rendering, render


def render_hand(
    rig: Rig,
    params: HandParams,
    seed: int,
    size: int = SIZE,
    samples: int = 9,
    margin: float = 0.25,
    framing: Framing | None = None,
) -> Rendering:
    """Render a hand with the given parameters; `seed` is that of the ray tracer, see `render` for the others."""
    points, frames = pose_mesh(rig, params.shape, params.pose)
    forearm = frames[FOREARM] @ np.linalg.inv(rig.joints[FOREARM])
    return render(
        rig,
        points,
        forearm,
        mirrored=params.right,
        skin=params.skin,
        sleeve=params.sleeve,
        light=params.light,
        view=params.view,
        seed=seed,
        size=size,
        samples=samples,
        margin=margin,
        framing=framing,
    )


def generate(seed: int, index: int, kind: Kind = GENERIC) -> tuple[HandParams, Rendering]:
    """Sample and render hand number `index` of a seed."""
    index, tone = (index // 10, index % 10 + 1) if kind.tones else (index, None)
    rig = person_rig(sample_person(np.random.default_rng((seed, index, 1)))) if kind.people else load_rig()
    params = sample_hand(seed, index, rig, tone, kind)
    return params, render_hand(rig, params, seed=index)
