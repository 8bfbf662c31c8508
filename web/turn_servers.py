"""ICE servers for WebRTC: TURN where the deployment configures any, else one public STUN server."""

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

REFRESH_S = 600  # credentials are fetched anew after it: they are valid for one hour (Twilio) or two (Cloudflare)
MAX_AGE_S = 3000  # while fetching fails, credentials are used for so long
RETRY_S = 60  # after a failed fetch
REQUEST_TIMEOUT_S = 10
STUN = {"urls": "stun:stun.l.google.com:19302"}


def twilio(account: str, token: str) -> list[Any]:
    """Fetch servers from Twilio. Its own package, which streamlit-webrtc uses, would wait without a timeout."""
    login = base64.b64encode(f"{account}:{token}".encode()).decode()
    request = urllib.request.Request(
        f"https://api.twilio.com/2010-04-01/Accounts/{account}/Tokens.json",
        b"Ttl=3600",
        {"Authorization": f"Basic {login}"},
    )
    with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as response:
        return json.load(response)["ice_servers"]


# By the variables of their account. Unwrapped: streamlit-webrtc would cache credentials until they expire, or for good.
SERVICES = {
    ("CLOUDFLARE_TURN_KEY_ID", "CLOUDFLARE_TURN_KEY_API_TOKEN"): unwrap(get_cloudflare_ice_servers),
    ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"): twilio,
    ("HF_TOKEN",): lambda token: [*unwrap(get_hf_ice_servers)(token), STUN],
}
_lock = Lock()
_cached: tuple[list[Any], float, float] = [], 0.0, 0.0  # servers, when to refresh them, when they expire


def is_configured() -> bool:
    """Return whether the deployment names a TURN server, or an account that provides some."""
    return bool(os.environ.get("TURN_URLS")) or any(all(map(os.environ.get, names)) for names in SERVICES)


def ice_servers() -> list[Any]:
    """Return WebRTC's `iceServers` for browser and server.

    Environment variables name a TURN server, or an account that gives short-lived credentials (Streamlit's secrets
    become environment variables too). Those are fetched anew after some minutes.
    """
    if urls := os.environ.get("TURN_URLS"):
        names = {"username": "TURN_USERNAME", "credential": "TURN_CREDENTIAL"}
        account = {key: os.environ.get(name, "") for key, name in names.items()}
        return [{"urls": urls.replace(",", " ").split(), **account}]
    _, refresh, expiry = _cached
    now = time.monotonic()
    # One visitor waits for the refresh, and the others get the old servers; without any, all wait.
    if now >= refresh and _lock.acquire(blocking=now >= expiry):
        try:
            refresh_servers(now)
        finally:
            _lock.release()
    return _cached[0]


def refresh_servers(now: float) -> None:
    """Fetch servers, unless another thread has while this one waited."""
    global _cached
    servers, refresh, expiry = _cached
    if now < refresh:
        return
    if fetched := fetch():
        _cached = fetched, now + REFRESH_S, now + MAX_AGE_S
    elif now < expiry:
        _cached = servers, now + RETRY_S, expiry
    else:
        _cached = [STUN], now + RETRY_S, math.inf


def fetch() -> list[Any]:
    """Return the servers of the first account that provides any, or none."""
    for names, service in SERVICES.items():
        account = [os.environ.get(name, "") for name in names]
        if all(account):
            try:
                return service(*account)
            except Exception as error:  # of many types; its message may hold the account, and is not logged
                LOG.warning("no TURN credentials", extra={"variable": names[0], "error": type(error).__name__})
    return []
