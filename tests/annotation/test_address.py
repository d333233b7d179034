"""Which servers are on this machine, and which proxy lies before the others."""

import socket

import pytest

from aer_jax.annotation.engines.served.address import is_local, server_address
from aer_jax.errors import UserError

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in (*PROXIES, "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("LocalHost.", True),
        ("127.0.0.1", True),
        ("127.255.1.2", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),  # as servers print their own address; a connection to it stays on this machine
        ("::", True),
        ("localhost.evil.com", False),
        ("127.0.0.1.evil.com", False),
        ("evil-localhost", False),
        ("mylocalhost", False),
        ("10.0.0.1", False),
        ("192.168.0.5", False),
        ("169.254.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1", False),
        ("api.example.com", False),
        ("2130706433", False),
        ("0x7f.1", False),
        ("", False),
    ],
)
def test_local(host, local):
    assert is_local(host) is local


def test_localhost_is_what_it_is_resolved_to(monkeypatch):
    def resolve(*addresses):
        found = [(socket.AF_INET, 1, 6, "", (address, 0)) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    resolve("127.0.0.1", "::1")
    assert is_local("localhost")
    resolve("127.0.0.1", "10.0.0.7")
    assert not is_local("localhost")
    resolve("127.0.0.1")
    assert not is_local("server")  # a name may be resolved otherwise a moment later


@pytest.mark.parametrize("local", ["http://localhost:8000/v1", "http://[::1]:8000/v1", "https://127.0.0.1/v1"])
@pytest.mark.parametrize("name", [*PROXIES[:3], *(name.lower() for name in PROXIES[:3])])
def test_local_servers_have_no_proxy_and_others_name_theirs(monkeypatch, local, name):
    scheme = "https" if "https" in name.lower() else "http"
    monkeypatch.setenv(name, "user:secret@proxy.corp:3128")
    assert server_address(local).local and server_address(local).proxy == ""
    away = server_address(f"{scheme}://api.example.com/v1")
    assert (away.local, away.proxy) == (False, "http://user:secret@proxy.corp:3128")
    assert away.way == "api.example.com through the proxy proxy.corp:3128"
    monkeypatch.setenv("NO_PROXY", ".example.com")
    assert server_address(f"{scheme}://api.example.com/v1").way == "api.example.com"


def test_the_proxy_of_one_scheme_is_not_that_of_the_other(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.corp:3128")
    assert server_address("https://api.example.com/v1").proxy == ""
    assert server_address("http://api.example.com/v1").proxy == "http://proxy.corp:3128"
    monkeypatch.setenv("ALL_PROXY", "socks5://socks.corp:1080")
    assert server_address("https://api.example.com/v1").way == "api.example.com through the proxy socks.corp:1080"


def test_the_address_is_the_flags_the_environments_or_openais(monkeypatch):
    assert server_address().url == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    assert server_address().url == "http://localhost:1/v1"
    assert server_address("http://localhost:2/v1 ").url == "http://localhost:2/v1"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8000/v1", "must begin with http:// or https://"),
        ("ftp://localhost/v1", "must begin with http"),
        ("//localhost/v1", "must begin with http"),
        ("http:///v1", "name a host"),
        ("http://localhost:99999/v1", "is not an address"),
        ("http://localhost:port/v1", "is not an address"),
        ("http://[::1/v1", "is not an address"),
        ("http://user:secret@api.example.com/v1", "must not hold a user name or password"),
        ("http://localhost:8000@evil.com/v1", "must not hold a user name or password"),
        ("http://localhost\\@evil.com/v1", "must not hold a user name or password"),
        ("http://localhost\\.evil.com/v1", "must not hold"),
    ],
)
def test_what_is_no_address_is_refused(url, words):
    with pytest.raises(UserError, match=words) as refusal:
        server_address(url)
    assert "secret" not in str(refusal.value)
