"""Who sends a request."""

from ipaddress import ip_address

from starlette.requests import Request


def client_address(request: Request) -> str:
    """Return the address of a client: behind a proxy, the one that the proxy saw."""
    address = request.client.host if request.client else ""
    forwarded = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    try:
        peer = ip_address(address)
        behind_proxy = (getattr(peer, "ipv4_mapped", None) or peer).is_private  # from elsewhere, it may be anything
    except ValueError:
        behind_proxy = False
    return forwarded if behind_proxy and forwarded else address
