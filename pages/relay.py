"""The servers that bring a stream through firewalls: TURN ones where the deployment names any, else one for STUN."""

import os
import time
from inspect import unwrap
from threading import Lock
from typing import Any

from streamlit_webrtc import get_cloudflare_ice_servers, get_hf_ice_servers, get_twilio_ice_servers

from pages.log import LOG

KEPT = 600  # seconds that credentials are handed out: they hold for an hour (Twilio) or two (Cloudflare)
AGAIN = 60  # seconds until a service that gave none is asked again
STUN = {"urls": "stun:stun.l.google.com:19302"}
# By the variables that hold an account. streamlit-webrtc would keep what it got for as long as it holds, or for good.
SERVICES = {
    ("CLOUDFLARE_TURN_KEY_ID", "CLOUDFLARE_TURN_KEY_API_TOKEN"): unwrap(get_cloudflare_ice_servers),
    ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"): unwrap(get_twilio_ice_servers),
    ("HF_TOKEN",): lambda token: [*unwrap(get_hf_ice_servers)(token), STUN],
}
_lock = Lock()
_kept: tuple[float, list[Any]] = 0.0, []  # until when, and what


def ice_servers() -> list[Any]:
    """What browser and server connect by, as WebRTC's `iceServers`.

    They are named by environment variables, or by Streamlit's secrets, which become such: a TURN server of one's own,
    or an account that gives short-lived credentials. Those are fetched anew after some minutes.
    """
    global _kept
    if urls := os.environ.get("TURN_URLS"):
        names = {"username": "TURN_USERNAME", "credential": "TURN_CREDENTIAL"}
        return [{"urls": urls.split(","), **{key: os.environ.get(name, "") for key, name in names.items()}}]
    with _lock:
        if time.monotonic() >= _kept[0]:
            servers = fetch()
            _kept = time.monotonic() + (KEPT if servers else AGAIN), servers or [STUN]
        return _kept[1]


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
