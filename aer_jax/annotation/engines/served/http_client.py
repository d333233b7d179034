"""HTTP client for annotation servers: no proxy but the one that was named, no redirects, bounded replies."""

from __future__ import annotations

import contextlib
import email.utils
import math
import os
import ssl
import time
import zlib
from collections.abc import Mapping
from typing import Any

from aer_jax.annotation.engines.served.address import Address
from aer_jax.errors import UserError

BODY_BYTES = 1 << 20  # a chat completion is a few kB


def http_client(address: Address, timeout: float) -> Any:
    """A client for one server.

    Nothing of it depends on the environment but certificates: what httpx itself reads there (HTTP_PROXY, ALL_PROXY,
    .netrc) could send audio elsewhere than the user was asked about.

    Args:
        address: of the server.
        timeout: seconds until a reply must have arrived whole.

    Raises:
        UserError: the proxy cannot be used.
    """
    import openai

    class Client(openai.DefaultHttpxClient):
        def send(self, request: Any, **options: Any) -> Any:
            response = super().send(request, **{**options, "stream": True})
            try:
                body = _read(response, time.monotonic() + timeout)
            except TimeoutError:
                late = b"the reply was not complete in time (--timeout)"
                return type(response)(408, content=late, request=request)
            finally:
                response.close()
            headers = {name: value for name, value in response.headers.items() if name not in _TRANSFER}
            return type(response)(response.status_code, headers=headers, content=body, request=request)

    try:
        certificates = _certificates()
    except OSError as error:
        raise UserError(f"the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be read ({error}).") from None
    try:
        return Client(trust_env=False, proxy=address.proxy or None, follow_redirects=False, verify=certificates)
    except (ImportError, ValueError) as error:
        raise UserError(f"the proxy {address.proxy_name} cannot be used: {error}".rstrip(".") + ".") from None


_TRANSFER = ("content-encoding", "content-length", "transfer-encoding")


def _read(response: Any, deadline: float) -> bytes:
    body = b""
    for part in response.iter_raw():
        body += part
        if len(body) >= BODY_BYTES:
            break
        if time.monotonic() > deadline:
            raise TimeoutError
    if response.headers.get("content-encoding", "").lower() in ("gzip", "x-gzip", "deflate"):
        with contextlib.suppress(zlib.error):
            body = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, BODY_BYTES)
    return body[:BODY_BYTES]


def _certificates() -> ssl.SSLContext | bool:
    """Those that SSL_CERT_FILE or SSL_CERT_DIR name, else httpx's own choice."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    return ssl.create_default_context(cafile=file, capath=folder) if file or folder else True


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, as a number or a date; None where it says nothing sensible."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return seconds if 0 <= seconds < math.inf else None
