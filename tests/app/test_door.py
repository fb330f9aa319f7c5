"""Only the page itself gets in, through the doors that it needs, with what its controls send."""

import json
import math

import pytest

from hybridvq import ConfigError
from hybridvq.app.door import BODY_BYTES, hosts_of
from hybridvq.app.page import UNREAD

FILE = {"_type": "gradio.FileData"}
EVENT = {"session_hash": "a", "data": [None, 1], "fn_index": 2}
SHUT = (
    ("POST", "/gradio_api/run/new"),
    ("POST", "/gradio_api/run/new/"),
    ("POST", "/gradio_api/api/predict"),
    ("POST", "/api/predict"),
    ("POST", "/gradio_api/call/new"),
    ("POST", "/gradio_api/call/v2/new"),
    ("POST", "//gradio_api/run/new"),
    ("POST", "/gradio_api/./run/new"),
    ("POST", "/gradio_api/queue/../run/new"),
    ("POST", "/gradio_api/queue/join/"),
    ("POST", "/gradio_api/component_server"),
    ("POST", "/gradio_api/process_recording"),
    ("POST", "/gradio_api/vibe-edit"),
    ("POST", "/gradio_api/cancel"),
    ("POST", "/gradio_api/stream/0"),
    ("POST", "/login"),
    ("GET", "/gradio_api/file=/etc/hostname"),
    ("GET", "/gradio_api/file=http://127.0.0.1/"),
    ("GET", "/gradio_api/proxy=http://127.0.0.1/"),
    ("GET", "/gradio_api/upload_progress?upload_id=0"),
    ("GET", "/gradio_api/info"),
    ("GET", "/gradio_api/queue/status"),
    ("GET", "/gradio_api/deep_link"),
    ("GET", "/gradio_api/startup-events"),
    ("GET", "/monitoring"),
    ("GET", "/config"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
)


def result(client, site, name, *data, number=0, session="visitor", whole=False):
    """What a handler of the page answers to an event, as a browser gets it: the last output, or all."""
    (fn, *_) = [fn for fn in site.state.blocks.fns.values() if fn.name == name][number:]
    event = {"fn_index": fn._id, "session_hash": session, "data": list(data)}
    sent = client.post(
        "/gradio_api/queue/join", content=json.dumps(event), headers={"content-type": "application/json"}
    )
    assert sent.status_code == 200, sent.text
    with client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
        messages = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    (done,) = [message for message in messages if message["msg"] == "process_completed"]
    assert done["success"], done
    return done["output"]["data"] if whole else done["output"]["data"][-1]


@pytest.mark.parametrize(("method", "path"), SHUT)
def test_other_doors_are_shut(client, method, path):
    assert client.request(method, path, json={"data": [0], "session_hash": "a"}).status_code == 404


def test_doors_of_the_page_are_open(client):
    assert "hybridvq" in client.get("/").text
    for path in ("/theme.css", "/static/js/iframeResizer.contentWindow.min.js"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "LOCALHOST:1", "[::1]:7860"])
def test_own_hosts(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil", ""])
def test_foreign_hosts_are_refused(client, host):
    assert client.get("/", headers={"host": host}).status_code == 400
    assert client.post("/gradio_api/queue/join", headers={"host": host}, json={}).status_code == 400


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:7860", 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1:3000", 403),
        ("http://localhost:7860", 403),
        ("http://127.0.0.1:7860.evil.example", 403),
        ("http://[", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_pages_of_other_sites_are_refused(client, origin, status):
    assert client.get("/", headers={"origin": origin}).status_code == status
    posted = client.post("/gradio_api/upload", headers={"origin": origin}, files={"files": ("a.png", b"")})
    assert posted.status_code == status


def test_names_can_be_allowed(loaded, tmp_path):
    from starlette.testclient import TestClient

    from app.conftest import site_of

    client = TestClient(site_of(loaded, tmp_path, host="0.0.0.0", allowed=["demo.example.com", "*.example.org"]))
    for host, status in (("demo.example.com", 200), ("a.example.org", 200), ("localhost", 200), ("example.com", 400)):
        assert client.get("/", headers={"host": host}).status_code == status
    for origin, status in (("https://demo.example.com", 200), ("https://other.example.com", 403)):
        assert client.get("/", headers={"host": "127.0.0.1:7860", "origin": origin}).status_code == status


def test_hosts_of_addresses():
    assert hosts_of("127.0.0.1", []) == ["127.0.0.1", "localhost", "[::1]"]
    assert hosts_of("192.0.2.7", ["*"])[3:] == ["192.0.2.7", "*"]
    assert "[fe80::1]" in hosts_of("fe80::1", [])
    for name in ("https://demo.example.com", "demo:8000", "a*", "*a.com", "", "a b"):
        with pytest.raises(ConfigError, match="--allowed-hosts has"):
            hosts_of("127.0.0.1", [name])


def test_requests_are_small(client):
    big = b'{"session_hash": "a", "data": ["' + b"a" * BODY_BYTES + b'"]}'
    assert client.post("/gradio_api/queue/join", content=big).status_code == 413
    assert client.post("/gradio_api/queue/join", content=iter([big[:9000]] * 9)).status_code == 413
    deep = b'{"session_hash": "a", "data": ' + b"[" * (BODY_BYTES - 100)
    assert client.post("/gradio_api/queue/join", content=deep).status_code in (400, 422)


@pytest.mark.parametrize(
    "value",
    [
        {"path": "/etc/hostname", "meta": FILE},
        {"path": "http://127.0.0.1:1/secret", "meta": FILE},
        {"path": "a.png", "url": "http://127.0.0.1:1/secret", "meta": FILE},
        {"path": "../../etc/hostname", "meta": FILE},
        {"path": 3, "meta": FILE},
        {"value": {"path": "/etc/hostname", "meta": FILE}},
        {"path": "/etc/hostname"},
        [{"path": "/etc/hostname", "meta": FILE}],
        ["chelsea"],
        "a" * 257,
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_events_carry_what_controls_have(client, value, place):
    event = {"fn_index": 2, "session_hash": "a", "data": [None, 1]}
    event["data"][place] = value
    assert client.post("/gradio_api/queue/join", json=event).status_code == 400


@pytest.mark.parametrize("change", [{"session_hash": "a/b"}, {"session_hash": None}, {"session_hash": "a" * 65}])
def test_events_are_of_a_session(client, change):
    assert client.post("/gradio_api/queue/join", json=EVENT | change).status_code in (400, 422)


@pytest.mark.parametrize("event", [[], {}, EVENT | {"fn_index": 999}, EVENT | {"fn_index": [2]}, EVENT | {"data": 1}])
def test_events_are_of_a_control(client, event):
    assert client.post("/gradio_api/queue/join", json=event).status_code in (400, 422)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("chosen", ["nobody"], "there is no sample photograph"),
        ("chosen", [3], "there is no sample photograph"),
        ("show", [None, None, "gain-shape", "vq", 1], "Choose a sample photograph"),
        ("show", [None, "chelsea", "nobody", "vq", 1], "the model is"),
        ("show", [None, "chelsea", "gain-shape", None, 1], "the other is"),
        ("show", [None, "chelsea", "gain-shape", "vq", math.nan], "all gains times is nan"),
        ("show", [None, "chelsea", "gain-shape", "vq", -1], "all gains times is -1"),
        ("show", [None, "chelsea", "gain-shape", "vq", "1"], "all gains times is &#x27;1&#x27;"),
        ("show", [None, "chelsea", "gain-shape", "vq", 1e308], "all gains times is 1e+308"),
        ("show", [None, "chelsea", "gain-shape", "vq", None], "all gains times is None"),
        ("show", [None, "chelsea", "gain-shape", "vq", True], "all gains times is True"),
        ("new", ["0", 1, 1, 0, 1, 3, "any class"], "the seed is"),
        ("new", [math.inf, 1, 1, 0, 1, 3, "any class"], "the seed is inf"),
        ("new", [0, 1e308, 1, 0, 1, 3, "any class"], "the number of pictures is 1e+308"),
        ("new", [0, 1, math.nan, 0, 1, 3, "any class"], "the temperature is nan"),
        ("new", [0, 1, 1, -1, 1, 3, "any class"], "top k is -1"),
        ("new", [0, 1, 1, 0, 0, 3, "any class"], "top p is 0"),
        ("new", [0, 1, 1, 0, 1, 0, "any class"], "the guidance is 0; give a number from 1 to 10"),
        ("new", [0, 1, 1, 0, 1, 3, "no such class"], "the class is"),
        ("drawn", ["no such model"], "the model is"),
    ],
)
def test_odd_values_are_sentences(client, site, name, data, sentence):
    shown = result(client, site, name, *data)
    assert sentence in shown
    assert "Something went wrong" not in shown


def test_a_browser_hears_of_progress(client, site, monkeypatch):
    """Drawing tells the queue how far it is, for the bar."""
    told = []
    monkeypatch.setattr(site.state.blocks._queue, "set_progress", lambda event, bars: told.append(bars[-1].progress))
    assert "<img" in result(client, site, "new", 0, 1, 1, 0, 1, 3, "light")
    assert told == [(i + 1) / 16 for i in range(16)]
    assert site.state.blocks.progress_tracking


@pytest.mark.parametrize(
    ("which", "dials"),
    [
        ("nobody", ["quality", 50, 0, 1, 0, 1]),
        (None, ["quality", 50, 0, 1, 0, 1]),
        ("hybrid", ["nothing", 50, 0, 1, 0, 1]),
        ("hybrid", ["lambda", 50, 0, 1, 0, 1]),
        ("hybrid", ["quality", 0, 0, 1, 0, 1]),
        ("hybrid", ["quality", math.nan, 0, 1, 0, 1]),
        ("hybrid", ["quality", "50", 0, 1, 0, 1]),
        ("hybrid", ["quality", 50, 0, 1, 0.5, 1]),
        ("hybrid", ["quality", 50, 0, 1, 2**32, 1]),
        ("hybrid", ["quality", 50, 0, 1, 0, 2]),
        ("hybrid", ["quality", 50, 0, 1, 0, None]),
        ("gain-shape", ["quality", 50, 0, 1, 0, 1]),
        ("gain-shape", ["lambda", 50, math.nan, 1, 0, 1]),
        ("gain-shape", ["bits per pixel", 50, 0, "1", 0, 1]),
        ("gain-shape", [None, 50, 0, 0, 0, 1]),
    ],
)
def test_odd_values_of_compress(client, site, which, dials):
    shown = result(client, site, "work", None, "chelsea", which, *dials)
    assert "; " in shown
    assert "Something went wrong" not in shown


def test_results_that_nobody_fetches_are_bounded(client, site):
    queue = site.state.blocks._queue
    fn = next(fn._id for fn in site.state.blocks.fns.values() if fn.name == "new")

    def join(session):
        event = {"fn_index": fn, "session_hash": session, "data": [-1, 1, 1, 0, 1, 3, "any class"]}
        return client.post("/gradio_api/queue/join", json=event).status_code

    statuses = [join("greedy") for _ in range(UNREAD[1] + 1)]
    assert statuses == [200] * UNREAD[1] + [429]
    for number in range(UNREAD[0] + 8):
        while join(f"silent{number}") == 503:
            pass
    assert len(queue.pending_messages_per_session) <= UNREAD[0]
    assert "greedy" not in queue.pending_messages_per_session


def test_who_waits_keeps_a_place(client, site):
    """The session that came first is not the first to go when it comes again."""
    queue = site.state.blocks._queue
    result(client, site, "new", -1, 1, 1, 0, 1, 3, "any class", session="first")
    result(client, site, "new", -1, 1, 1, 0, 1, 3, "any class", session="second")
    result(client, site, "new", -1, 1, 1, 0, 1, 3, "any class", session="first")
    assert [*queue.pending_messages_per_session][-2:] == ["second", "first"]
