"""The servers that bring a stream through firewalls: TURN ones where the deployment names any, else one for STUN."""

import base64
import json
import math
import os
import time
import urllib.request
from inspect import unwrap
from threading import Lock
from typing import Any

from streamlit_webrtc import get_cloudflare_ice_servers, get_hf_ice_servers

from web.log import LOG

KEPT = 600  # seconds that credentials are handed out: they hold for an hour (Twilio) or two (Cloudflare)
HOLD = 3000  # seconds that they are handed out where the service gives no others
AGAIN = 60  # seconds until a service that gave none is asked again
PATIENCE = 10  # seconds for a service to answer
STUN = {"urls": "stun:stun.l.google.com:19302"}


def twilio(account: str, token: str) -> list[Any]:
    """Servers of Twilio's. Its own package, by which streamlit-webrtc asks, would wait for an answer for ever."""
    login = base64.b64encode(f"{account}:{token}".encode()).decode()
    request = urllib.request.Request(
        f"https://api.twilio.com/2010-04-01/Accounts/{account}/Tokens.json",
        b"Ttl=3600",
        {"Authorization": f"Basic {login}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)["ice_servers"]


# By the variables that hold an account. streamlit-webrtc would keep what it got for as long as it holds, or for good.
SERVICES = {
    ("CLOUDFLARE_TURN_KEY_ID", "CLOUDFLARE_TURN_KEY_API_TOKEN"): unwrap(get_cloudflare_ice_servers),
    ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"): twilio,
    ("HF_TOKEN",): lambda token: [*unwrap(get_hf_ice_servers)(token), STUN],
}
_lock = Lock()
_kept: tuple[list[Any], float, float] = [], 0.0, 0.0  # servers, when others are due, and when these are of no use


def named() -> bool:
    """Whether the deployment names a TURN server, or an account that gives some."""
    return bool(os.environ.get("TURN_URLS")) or any(all(map(os.environ.get, names)) for names in SERVICES)


def ice_servers() -> list[Any]:
    """What browser and server connect by, as WebRTC's `iceServers`.

    They are named by environment variables, or by Streamlit's secrets, which become such: a TURN server of one's own,
    or an account that gives short-lived credentials. Those are fetched anew after some minutes.
    """
    if urls := os.environ.get("TURN_URLS"):
        names = {"username": "TURN_USERNAME", "credential": "TURN_CREDENTIAL"}
        account = {key: os.environ.get(name, "") for key, name in names.items()}
        return [{"urls": urls.replace(",", " ").split(), **account}]
    _, due, end = _kept
    now = time.monotonic()
    # One visitor waits for a service. The others take what there is, be it older; all wait where there is nothing.
    if now >= due and _lock.acquire(blocking=now >= end):
        try:
            renew(now)
        finally:
            _lock.release()
    return _kept[0]


def renew(now: float) -> None:
    """Ask for servers, unless another visitor has while this one waited."""
    global _kept
    kept, due, end = _kept
    if now < due:
        return
    if servers := fetch():
        _kept = servers, now + KEPT, now + HOLD
    elif now < end:
        _kept = kept, now + AGAIN, end
    else:
        _kept = [STUN], now + AGAIN, math.inf


def fetch() -> list[Any]:
    """Servers of the first account that gives any; none without one."""
    for names, service in SERVICES.items():
        account = [os.environ.get(name, "") for name in names]
        if all(account):
            try:
                return service(*account)
            except Exception as error:  # each service has its own, and its words may tell the account
                LOG.warning("no TURN credentials", extra={"variable": names[0], "error": type(error).__name__})
    return []
