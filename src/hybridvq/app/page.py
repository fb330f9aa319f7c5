"""The page and its server."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from socket import AF_INET, AF_INET6, create_server, socket

import gradio as gr
import uvicorn
from fastapi import Depends, FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.routing import Mount, Route

from hybridvq.app import markup, tabs
from hybridvq.app.chooser import LIMIT, picture_chooser
from hybridvq.app.door import BODY_BYTES, EVERYWHERE, Door, bracket, hosts_of, read_event
from hybridvq.app.models import Models
from hybridvq.app.uploads import MAX_BYTES, Uploads
from hybridvq.errors import ConfigError

WAITING = 32  # computations in the queue before new ones are turned away
SESSIONS = 32  # whose pictures are held, some MB each
UNREAD = 2 * WAITING, 4  # sessions whose results are held until they are read, and results of each
CONNECTIONS = 256  # at once; a tab of a browser takes two to six
FIRST = "Reconstruct"  # the tab that is open at first
STOP_SECONDS = 5  # for what is under way when the page is stopped
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
CSS = """
.gradio-container { width: 100% !important; max-width: 1280px !important; margin: 0 auto !important; }
.gradio-container .action { align-self: center; }
.gradio-container .html-container { padding: 0 !important; }
"""
LIGHT = "() => document.body.classList.remove('dark')"


def build_page(models: Models, uploads: Uploads) -> gr.Blocks:
    """The page of these models."""
    os.environ["GRADIO_TEMP_DIR"] = str(uploads.root)  # files from elsewhere are refused
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)  # events before a summary that nobody can ask for
    with gr.Blocks(title="hybridvq", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(f"# hybridvq\nPictures as short tokens and small files. {LIMIT}")
        picture = picture_chooser(uploads, page, FIRST)
        with gr.Tab(FIRST) as tab:
            tabs.reconstruct_tab(models, picture, tab)
        with gr.Tab("Compress") as tab:
            tabs.compress_tab(models, uploads, picture, tab)
        with gr.Tab("Generate"):
            tabs.generate_tab(models.prior, picture)
        with gr.Tab("Codebook") as tab:
            tabs.codebook_tab(models, tab)
        with gr.Tab("Compare") as tab:
            tabs.compare_tab(uploads, tab)
    page.state_session_capacity = SESSIONS
    page.has_launched = True  # without which Gradio copies any file of this machine that a request names
    page.queue(max_size=WAITING, api_open=False)
    page._queue.pending_messages_per_session.max_size = UNREAD[0]
    return page


def build_site(page: gr.Blocks, uploads: Uploads, host: str = "127.0.0.1", allowed: Sequence[str] = ()) -> FastAPI:
    """The page behind its doors.

    Args:
        page: of `build_page`.
        uploads: where it finds its files.
        host: the address that it is to listen at.
        allowed: names of hosts that it may be asked for by, beside its own.

    Raises:
        ConfigError: a name is none.
    """

    async def check(request: Request) -> None:
        if request.method == "POST":
            make_room(page, await read_event(request, page.fns, uploads))

    site = FastAPI(
        openapi_url=None,
        routes=[Route("/gradio_api/upload", uploads.receive, methods=["POST"], max_body_size=MAX_BYTES + BODY_BYTES)],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts_of(host, allowed), www_redirect=False),
            Middleware(Door, allowed=allowed),
            Middleware(RequestBodyLimitMiddleware, max_body_size=BODY_BYTES),
        ],
    )
    gr.mount_gradio_app(
        site,
        page,
        path="/",
        app_kwargs={"dependencies": [Depends(check)]},
        ssr_mode=False,
        run_history=False,
        show_error=False,
        footer_links=[],
        max_file_size=MAX_BYTES,
        theme=gr.themes.Default(
            primary_hue="blue",
            neutral_hue="gray",
            font=FONTS,
            font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
        ),
        css=CSS + markup.CSS,
        js=LIGHT,
    )
    mounted = site.routes[-1]
    assert isinstance(mounted, Mount)
    site.state.page = mounted.app
    return site


def make_room(page: gr.Blocks, session: str) -> None:
    """Let go of results that were sent or that nobody fetches, before an event of a session makes another.

    Raises:
        HTTPException: the session itself does not fetch its results.
    """
    queue = page._queue
    if len(queue.pending_event_ids_session.get(session, ())) >= UNREAD[1]:
        raise HTTPException(429, "Too many results are waiting to be fetched.")
    if session in queue.pending_messages_per_session:
        queue.pending_messages_per_session.move_to_end(session)
    for state in page.state_holder.session_data.values():
        state.config_values.clear()  # Gradio keeps every result there, for links that this page does not give


@contextmanager
def serve(site: FastAPI, host: str, port: int) -> Iterator[str]:
    """Serve the page from a thread of this process, and give its address.

    Raises:
        ConfigError: it cannot be served there.
    """
    with bind(host, port) as bound:
        settings = uvicorn.Config(
            site, log_level="warning", limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=STOP_SECONDS
        )
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield f"http://{'localhost' if host in EVERYWHERE else bracket(host)}:{bound.getsockname()[1]}/"
        finally:
            site.state.page.stop_event.set()  # ends the streams that browsers hold open
            server.should_exit = True
            thread.join()


def bind(host: str, port: int) -> socket:
    """A socket that listens there.

    Raises:
        ConfigError: there can be none.
    """
    try:
        return create_server((host.strip("[]"), port), family=AF_INET6 if ":" in host else AF_INET)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the page cannot be served at {host}:{port} ({error}); choose another --host or --port"
        ) from error
