"""The "Show me" game."""

from handful import COUNTS
from web.game import HOLD_S, TIME_LIMIT_S, Answer, Game


def test_the_target_held_for_a_moment_is_a_correct_answer():
    game = Game(seed=1)
    game.update(3, 0.0)  # before the first round
    assert game.answers == []
    game.ask(0.0)
    target = game.target
    assert target != 3
    game.update(3, 1.0)
    game.update(target, 2.0)
    game.update(target, 2.0 + HOLD_S / 2)
    assert game.answers == []
    game.update(target, 2.01 + HOLD_S)
    assert game.answers == [Answer(target, target, round(2.01 + HOLD_S, 2))]
    assert game.answers[0].is_correct
    assert game.target not in (target, None)


def test_another_count_until_the_time_limit_is_an_incorrect_answer():
    game = Game(seed=1)
    game.ask(10.0)
    other = next(count for count in COUNTS if count != game.target)
    target = game.target
    game.update(other, 11.0)
    game.update(other, 10.0 + TIME_LIMIT_S)
    assert game.answers == [Answer(target, other, TIME_LIMIT_S)]
    assert not game.answers[0].is_correct


def test_the_next_target_is_neither_the_last_one_nor_the_count_shown():
    game = Game(seed=2)
    game.ask(0.0)
    for seconds in range(0, 200, 10):
        previous = game.target
        game.update(previous, float(seconds))
        game.update(previous, seconds + 1.0)
        assert game.target != previous
