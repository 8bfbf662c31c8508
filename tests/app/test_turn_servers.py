"""ICE servers: credentials are fetched, refreshed and never logged."""

import json
import re
import time
from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from threading import Event, Thread
from urllib.error import URLError

import pytest

from tests.app.pages import open_page
from web import turn_servers
from web.log import LOG


def answer_in_turn(*answers: dict | OSError) -> Callable:
    """Return a stand-in for `urlopen` that returns or raises one answer per request."""
    remaining = iter(answers)

    def urlopen(request, timeout: float) -> BytesIO:
        if isinstance(answer := next(remaining), OSError):
            raise answer
        body = BytesIO(json.dumps(answer).encode())
        body.status = 200
        return body

    return urlopen


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The minutes that have passed, in a list of one."""
    minutes, start = [0.0], time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: start + 60 * minutes[0])
    monkeypatch.setattr(turn_servers, "_cached", ([], 0.0, 0.0))
    return minutes


def test_live_gets_fresh_credentials_long_before_they_expire(monkeypatch, clock):
    monkeypatch.setattr("streamlit_webrtc.component.get_this_session_info", lambda: None)
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    answers = [{"username": str(n), "credential": "secret"} for n in range(2)]
    monkeypatch.setattr("urllib.request.urlopen", answer_in_turn(*answers))
    configurations = []
    monkeypatch.setattr(
        "streamlit_webrtc.component._component_func", lambda **args: configurations.append(args["rtc_configuration"])
    )
    for minutes in (0, 9, 11):
        clock[0] = minutes
        open_page("live")
    assert [configuration["iceServers"][0]["username"] for configuration in configurations] == ["0", "0", "1"]


def test_a_failed_fetch_is_retried_and_old_credentials_are_used_meanwhile(monkeypatch, clock, caplog):
    monkeypatch.setattr(LOG, "handlers", [caplog.handler])
    monkeypatch.setattr(LOG, "propagate", False)
    monkeypatch.setenv("CLOUDFLARE_TURN_KEY_ID", "key")
    monkeypatch.setenv("CLOUDFLARE_TURN_KEY_API_TOKEN", "token")
    given = [{"urls": ["turn:turn.example.org"], "username": "visitor", "credential": "secret"}]
    lost = URLError("https://example.org/key/token")
    monkeypatch.setattr("urllib.request.urlopen", answer_in_turn(lost, lost, {"iceServers": given}, *4 * [lost]))
    stun = [turn_servers.STUN]
    for minutes, servers in ((0, stun), (0.5, stun), (1.1, stun), (2.2, given), (11, given)):
        clock[0] = minutes
        assert turn_servers.ice_servers() == servers
    for minutes, servers in ((13, given), (13.5, given), (14.1, given), (52, given), (53.1, stun)):
        clock[0] = minutes
        assert turn_servers.ice_servers() == servers
    assert [record.variable for record in caplog.records] == 6 * ["CLOUDFLARE_TURN_KEY_ID"]
    assert not re.search("secret|token|example|visitor", str([vars(record) for record in caplog.records]))


def test_a_slow_service_blocks_only_one_visitor(monkeypatch, clock):
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    requested, answered = Event(), Event()
    monkeypatch.setattr(turn_servers, "fetch", lambda: ["first"])
    assert turn_servers.ice_servers() == ["first"]
    monkeypatch.setattr(turn_servers, "fetch", lambda: (requested.set(), answered.wait(10), ["second"])[-1])
    clock[0] = 11
    visitor = Thread(target=turn_servers.ice_servers)
    visitor.start()
    requested.wait(10)
    assert turn_servers.ice_servers() == ["first"]
    answered.set()
    visitor.join()
    assert turn_servers.ice_servers() == ["second"]


def test_twilio_is_asked_with_a_login_and_a_timeout(monkeypatch, clock):
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC1")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "secret")
    given = [{"urls": "turn:global.turn.twilio.com:3478", "username": "visitor", "credential": "word"}]
    requests, answer = [], answer_in_turn({"ice_servers": given})

    def urlopen(request, timeout: float) -> BytesIO:
        requests.append((request.get_method(), request.full_url, request.get_header("Authorization"), timeout))
        return answer(request, timeout)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    assert turn_servers.ice_servers() == given
    login = b64encode(b"AC1:secret").decode()
    url = "https://api.twilio.com/2010-04-01/Accounts/AC1/Tokens.json"
    assert requests == [("POST", url, f"Basic {login}", turn_servers.REQUEST_TIMEOUT_S)]


def test_turn_urls_may_be_separated_by_commas_and_spaces(monkeypatch):
    monkeypatch.setenv("TURN_URLS", "turn:a.example.org, turns:b.example.org, ")
    assert turn_servers.ice_servers()[0]["urls"] == ["turn:a.example.org", "turns:b.example.org"]
