"""Address of an annotation server, and the proxy to it."""

from __future__ import annotations

import ipaddress
import os
import socket
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

from aer_jax.errors import UserError

OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Address:
    """A server's address.

    Attributes:
        url: of the server.
        host: its name.
        local: whether it runs on this machine; what is sent to it stays here.
        proxy: URL of the proxy that the environment names for it; "" where there is none, as for every local server.
    """

    url: str
    host: str
    local: bool
    proxy: str

    @property
    def way(self) -> str:
        """The host and, where there is one, the proxy by name, for sentences; without user and password."""
        return f"{self.host} through the proxy {self.proxy_name}" if self.proxy else self.host

    @property
    def proxy_name(self) -> str:
        """The proxy without user and password."""
        return urlsplit(self.proxy).netloc.rpartition("@")[2]


def server_address(base_url: str = "") -> Address:
    """The address that `--base-url`, or else OPENAI_BASE_URL, names; OpenAI's own where neither is given.

    Raises:
        UserError: it is no http or https address, or holds a password.
    """
    url = (base_url or os.environ.get("OPENAI_BASE_URL", "")).strip() or OPENAI
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise UserError(f"--base-url is not an address ({url}); write http://HOST:PORT/v1.") from None
    if "@" in parts.netloc or "\\" in url:
        raise UserError("--base-url must not hold a user name or password; the key belongs in OPENAI_API_KEY.")
    if parts.scheme not in ("http", "https") or not host:
        raise UserError(f"--base-url must begin with http:// or https:// and name a host, not {url}.")
    local = is_local(host)
    return Address(url, host, local, "" if local else _proxy(parts.scheme, host))


def is_local(host: str) -> bool:
    """Whether a host is this machine: a loopback or unspecified address, or localhost where it is resolved to one."""
    try:
        return _stays_here(host)
    except ValueError:
        pass
    if host.rstrip(".").lower() != "localhost":
        return False
    try:
        return all(_stays_here(str(info[4][0])) for info in socket.getaddrinfo(host, None))
    except OSError:  # not resolved: nothing can be sent
        return True


def _stays_here(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or ip.is_unspecified


def _proxy(scheme: str, host: str) -> str:
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all") or ""
    if not proxy or urllib.request.proxy_bypass(host):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"
