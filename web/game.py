"""Show me: the app asks for a number of fingers, the visitor shows it. Fun, and an honest test."""

import random
from dataclasses import dataclass

HOLD = 0.4  # seconds that a count must stay to be taken as the answer
LIMIT = 6.0  # seconds to answer in


@dataclass(frozen=True)
class Answer:
    """One question, and how it went.

    Attributes:
        asked: the fingers asked for.
        told: the count when it was answered, or when time was up; None without a hand.
        seconds: how long that took.
    """

    asked: int
    told: int | None
    seconds: float

    @property
    def right(self) -> bool:
        return self.asked == self.told


class Game:
    """Asks for one number after the other.

    >>> game = Game(seed=1)
    >>> game.ask(0.0)
    >>> for seconds in (1.0, 1.2, 1.5):
    ...     game.see(game.asked, seconds)
    >>> game.answers[0].right, game.answers[0].seconds
    (True, 1.5)
    """

    def __init__(self, seed: int | None = None) -> None:
        self.answers: list[Answer] = []
        self.asked: int | None = None
        self._random = random.Random(seed)
        self._began = self._since = 0.0
        self._told: int | None = None

    def ask(self, seconds: float) -> None:
        """Ask for another number than the last, and than what is shown already."""
        taken = {self.asked, self._told}
        self.asked = self._random.choice([n for n in range(6) if n not in taken])
        self._began = self._since = seconds

    def see(self, told: int | None, seconds: float) -> None:
        """Go on with what is told now: None without a hand. Asks anew where that answers."""
        if told != self._told:
            self._told, self._since = told, seconds
        if self.asked is None:
            return
        passed = seconds - self._began
        held = told == self.asked and seconds - self._since >= HOLD
        if held or passed >= LIMIT:
            self.answers.append(Answer(self.asked, told, round(passed, 2)))
            self.ask(seconds)

    def stop(self) -> None:
        self.asked = None
