"""Which AMQP URLs are allowed, and how one is shown: loopback in the clear, everything else over verified TLS."""

import ipaddress

from yarl import URL

from bus.errors import Unusable


def check_url(url: str) -> URL:
    """The URL as a value, parsed once: what was checked is what is connected to.

    Raises `Unusable` for anything but `amqps://` with verification, or `amqp://` to a loopback address. A name other than
    `localhost` is not resolved, since whoever answers for it could say anything.
    """
    parsed = _parse(url)
    shown = without_password(parsed)
    if parsed.scheme not in {"amqp", "amqps"}:
        raise Unusable(f"{shown}: a bus URL starts with amqp:// or amqps://, this one with {parsed.scheme or 'nothing'}://")
    if not parsed.host:
        raise Unusable(f"{shown}: the host is missing; write amqps://USER:PASSWORD@HOST/VHOST")
    if _is_loopback(parsed.host):
        return parsed
    if parsed.scheme == "amqp":
        raise Unusable(f"{shown}: {parsed.host} is not this machine's loopback interface; use amqps:// (TLS)")
    if parsed.query.get("no_verify_ssl", "0") != "0":
        raise Unusable(f"{shown}: no_verify_ssl lets anybody answer for {parsed.host}; name your authority with cafile=")
    return parsed


def without_password(url: URL) -> str:
    """The URL for logs and errors."""
    return str(url.with_query(None).with_password("***") if url.password else url.with_query(None))


def _parse(url: str) -> URL:
    try:
        parsed = URL(url)
        _ = parsed.port
    except ValueError:
        raise Unusable("the bus URL cannot be read; write amqp://USER:PASSWORD@127.0.0.1:5672/ or amqps://...") from None
    return parsed


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
