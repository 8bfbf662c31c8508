"""Decoders go to clients in turns, so that none keeps the others waiting."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from benchmarks import hostile
from handful import Prediction
from handful.images import BadImage
from tests.builders import png
from web import inference
from web.decoders import DecodePool


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    pool = DecodePool(3)
    yield pool
    pool.close()


def test_one_client_has_all_decoders_but_one(pool):
    mine = [pool.request("mine") for _ in range(5)]
    assert [turn.done() for turn in mine] == [True, True, False, False, False]
    yours = pool.request("yours")
    assert yours.done()
    pool.release("yours", yours.result())
    assert not mine[2].done()
    pool.release("mine", mine[0].result())
    assert [turn.done() for turn in mine] == [True, True, True, False, False]


def test_the_next_turn_is_of_the_client_who_has_the_fewest(pool):
    running = [pool.request(client) for client in ("a", "a", "b")]
    waiting = [pool.request(client) for client in ("a", "b", "c")]
    pool.release("a", running[0].result())
    assert [turn.done() for turn in waiting] == [False, False, True]  # c has none, a and b have one each
    pool.release("b", running[2].result())
    assert [turn.done() for turn in waiting] == [False, True, True]


def test_who_gives_up_is_passed_over(pool):
    running = [pool.request(client) for client in ("a", "b", "c")]
    first, second = pool.request("d"), pool.request("d")
    assert first.cancel()
    pool.release("a", running[0].result())
    assert second.done()
    assert not pool.waiting


def test_a_decoder_is_given_back_also_after_an_error(pool):
    for _ in range(4):
        with pytest.raises(ZeroDivisionError), pool.turn("a"):
            raise ZeroDivisionError
    assert len(pool.idle) == 3
    assert not pool.running


def test_closing_refuses_the_picture_that_is_decoded():
    pool = DecodePool(2)
    slow = hostile.SLOW["PNG"]()
    with pool.turn("a") as decoder, ThreadPoolExecutor(1) as thread:
        decoder.decode(png())
        refused = thread.submit(decoder.decode, slow)
        time.sleep(0.1)
        pool.close()
        with pytest.raises(BadImage, match="damaged"):
            refused.result(10)
    pool.close()


def test_no_more_images_are_decoded_and_predicted_at_once_than_there_are_decoders(monkeypatch):
    """Each is in memory from its decoding to its prediction."""
    pool, both = DecodePool(2), Barrier(2)
    monkeypatch.setattr(inference, "shared_pool", lambda: pool)
    visits = iter("abcd")
    monkeypatch.setattr(inference, "session_id", lambda: next(visits))
    active, most = 0, 0

    def predict(image, *arguments):
        nonlocal active, most
        active += 1
        most = max(most, active)
        both.wait(30)
        active -= 1
        return prediction

    prediction = Prediction((), 60, 40, 1.0)
    monkeypatch.setattr(inference, "predict", predict)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: inference.predict_file(png(), "pictures"), range(4)))
    assert most == 2
    pool.close()
