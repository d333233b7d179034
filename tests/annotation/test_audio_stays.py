"""Licensed audio leaves the machine only where the user was asked: servers and proxies that record what arrives."""

from dataclasses import replace

import pytest
from chat_server import Server, completion

from aer_jax.annotation.annotate import annotate
from aer_jax.annotation.engines.served.openai_engine import OpenAIEngine
from aer_jax.annotation.listeners import crossed
from aer_jax.errors import UserError

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in (*VARIABLES, "NO_PROXY", "no_proxy", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")


@pytest.fixture
def licensed(task):
    return replace(task, dataset=replace(task.dataset, name="iemocap", licensed=True))


@pytest.fixture
def people(task):
    return crossed(1, task.prompt.personas)


def good(*_):
    return 200, {}, completion("Sad.")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_local_server_is_asked_past_every_proxy(licensed, people, tmp_path, monkeypatch, host):
    with Server(good).running() as server, Server(good).running() as proxy:
        for name in VARIABLES:
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        engine = OpenAIEngine("m", licensed, base_url=server.url.replace("127.0.0.1", host))
        assert annotate(licensed, engine, people, tmp_path / "j")["labelled"] == 6
        assert len(server.requests) == 6 and proxy.requests == []


def test_a_socks_proxy_is_no_obstacle_to_a_local_server(licensed, people, tmp_path, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    with Server(good).running() as server:
        assert (
            annotate(licensed, OpenAIEngine("m", licensed, base_url=server.url), people, tmp_path / "j")["asked"] == 6
        )


def test_a_proxy_before_another_server_is_named(licensed, task, people, tmp_path, monkeypatch, capsys):
    away = "http://api.example.com/v1"
    with Server(good).running() as proxy:
        at = proxy.url.removesuffix("/v1").removeprefix("http://")
        monkeypatch.setenv("HTTP_PROXY", f"http://user:pass-word@{at}")
        with pytest.raises(UserError, match=rf"send it to api\.example\.com through the proxy {at}; where you may"):
            OpenAIEngine("m", licensed, base_url=away)
        assert proxy.requests == []
        engine = OpenAIEngine("m", licensed, base_url=away, send_licensed=True)
        told = capsys.readouterr().err
        assert f"go to api.example.com through the proxy {at}" in told and "pass-word" not in told
        annotate(licensed, engine, people, tmp_path / "j")
        assert set(proxy.paths) == {f"{away}/chat/completions"} and len(proxy.requests) == 6
        monkeypatch.setenv("NO_PROXY", "example.com")
        OpenAIEngine("m", task, base_url=away)
        assert "go to api.example.com\n" in capsys.readouterr().err
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTP_PROXY", "nonsense://proxy")
    with pytest.raises(UserError, match="the proxy proxy cannot be used: "):
        OpenAIEngine("m", task, base_url=away)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_told_and_not_followed(licensed, people, tmp_path, status):
    with Server(good).running() as elsewhere:

        def behave(*_):
            return status, {"Location": f"{elsewhere.url}/chat/completions"}, b""

        with Server(behave).running() as server:
            engine = OpenAIEngine("m", licensed, base_url=server.url)
            with pytest.raises(UserError, match=rf"redirects to {elsewhere.url}/chat/completions; give that one"):
                annotate(licensed, engine, people, tmp_path / "j")
        assert elsewhere.requests == []
