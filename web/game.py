"""The "Show me" game: the app asks for a number of fingers, the visitor shows it."""

import random
from dataclasses import dataclass

from handful import COUNTS

HOLD_S = 0.4  # for so long, a count must stay the same to be taken as the answer
TIME_LIMIT_S = 6.0


@dataclass(frozen=True)
class Answer:
    """One round of the game.

    Attributes:
        target: the fingers asked for.
        predicted: the count at the end of the round; None without a hand.
        seconds: how long the round took.
    """

    target: int
    predicted: int | None
    seconds: float

    @property
    def is_correct(self) -> bool:
        return self.target == self.predicted


class Game:
    """Rounds with one target each.

    >>> game = Game(seed=1)
    >>> game.ask(0.0)
    >>> for seconds in (1.0, 1.2, 1.5):
    ...     game.update(game.target, seconds)
    >>> game.answers[0].is_correct, game.answers[0].seconds
    (True, 1.5)
    """

    def __init__(self, seed: int | None = None) -> None:
        self.answers: list[Answer] = []
        self.target: int | None = None
        self._random = random.Random(seed)
        self._round_start = self._unchanged_since = 0.0
        self._predicted: int | None = None

    def ask(self, seconds: float) -> None:
        """Start a round with a new target: neither the previous one nor the count shown now."""
        excluded = {self.target, self._predicted}
        self.target = self._random.choice([count for count in COUNTS if count not in excluded])
        self._round_start = self._unchanged_since = seconds

    def update(self, predicted: int | None, seconds: float) -> None:
        """Update the game with the predicted count, None without a hand; start the next round where this one ends."""
        if predicted != self._predicted:
            self._predicted, self._unchanged_since = predicted, seconds
        if self.target is None:
            return
        elapsed = seconds - self._round_start
        held = predicted == self.target and seconds - self._unchanged_since >= HOLD_S
        if held or elapsed >= TIME_LIMIT_S:
            self.answers.append(Answer(self.target, predicted, round(elapsed, 2)))
            self.ask(seconds)

    def stop(self) -> None:
        self.target = None
