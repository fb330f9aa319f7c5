"""Which requests reach the page: from this page itself, for what it needs, and of a size that it sends."""

import re
import socket
from collections.abc import Container, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from hybridvq.app.uploads import Uploads
from hybridvq.errors import ConfigError, DataError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
EVERYWHERE = ("0.0.0.0", "::")
HOST = re.compile(r"\*|(\*\.)?[\w-]+(\.[\w-]+)*|\[[0-9a-fA-F:.]+\]")
BODY_BYTES = 2**16  # of a request that is no upload
TEXT_LENGTH = 256  # of a control's text
SESSION = re.compile(r"\w{1,64}")
FILE = {"_type": "gradio.FileData"}

# Of Gradio's doors, those that its page in a browser uses. All others stay shut: some go around the queue, fetch
# addresses, serve files, or tell what others do.
OPEN = re.compile(
    r"/|/(assets|static)/.*|/theme\.css|/favicon\.ico|/gradio_api/(heartbeat/\w+|queue/join|queue/data|upload)"
)


def bracket(host: str) -> str:
    """An address as a URL writes it."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def hosts_of(host: str, allowed: Sequence[str]) -> list[str]:
    """The names by which a page that listens at `host` may be asked for: its own, and those `allowed`.

    Raises:
        ConfigError: one is no name of a host.
    """
    for name in allowed:
        if not HOST.fullmatch(name):
            raise ConfigError(
                f"--allowed-hosts has {name!r}; give names such as demo.example.com or *.example.com, without port"
            )
    own = [bracket(host)]
    if host in EVERYWHERE:
        own = [socket.gethostname()]
        with suppress(OSError):  # of a machine that does not know its own name
            own += socket.gethostbyname_ex(own[0])[2]
    return list(dict.fromkeys([*LOOPBACK, *own, *allowed]))


class Door:
    """Refuses what the page has no use for, and what a page of another site has a visitor's browser send.

    A browser says in Origin whose page asks. That is this page where it equals Host, or where a web server in front
    has changed Host, a name that was allowed.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self.app, self.allowed = app, [name.lower() for name in allowed]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self.refusal(scope) if scope["type"] != "lifespan" else None
        await (refusal or self.app)(scope, receive, send)

    def refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        if not OPEN.fullmatch(scope["path"]):
            return PlainTextResponse("There is nothing here.", 404)
        if "origin" in headers and not self.is_own(headers):
            return PlainTextResponse("This page takes no requests from other sites.", 403)
        return None

    def is_own(self, headers: Headers) -> bool:
        try:
            origin = urlsplit(headers["origin"])
            return origin.netloc.lower() == headers.get("host", "").lower() or origin.hostname in self.allowed
        except ValueError:
            return False


async def read_event(request: Request, handlers: Container[int], uploads: Uploads) -> str:
    """The session of an event for one of `handlers`, with what controls have: numbers, short texts, uploaded files.

    Gradio fetches, copies or opens whatever a file says that it is, in every control.

    Raises:
        HTTPException: it carries something else, or is none.
    """
    try:
        event = await request.json()
        values, session = event["data"], event["session_hash"]
        if event["fn_index"] not in handlers or not isinstance(values, list) or not SESSION.fullmatch(session):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise HTTPException(400, "This is no event of the page.") from None
    for value in values:
        if isinstance(value, dict) and value.get("meta") == FILE:
            try:
                uploads.find(value.get("path"))
            except DataError as error:
                raise HTTPException(400, str(error)) from None
        elif not (value is None or isinstance(value, int | float) or is_short(value)):
            raise HTTPException(400, f"A control's value is a number or a text of up to {TEXT_LENGTH} characters.")
    return str(session)


def is_short(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_LENGTH
