"""`hybridvq app`."""

import importlib.util
import os
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress

from jsonargparse import ArgumentParser, Namespace

from hybridvq.errors import ConfigError
from hybridvq.extras import lacking

SUMMARY = "Show models in a web page."
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    parser.add_argument("--model", type=str, default="photos-f4", help="the tokenizer to show")
    parser.add_argument("--baseline", type=str, default="photos-f4-vq", help="the tokenizer to show beside it")
    parser.add_argument("--prior", type=str, default="photos-f8-prior", help="what draws new pictures")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, default=7860, help="of the page's address")


def run(arguments: Namespace, words: Sequence[str]) -> None:
    if not 1 <= arguments.port <= 65535:
        raise ConfigError(f"--port is {arguments.port}; it must lie between 1 and 65535")
    if importlib.util.find_spec("gradio") is None:
        raise lacking("gradio")
    with tempfile.TemporaryDirectory(prefix="hybridvq-app-") as uploads:
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads}
        from hybridvq.app.models import load_models
        from hybridvq.app.page import build_page, start

        page = build_page(load_models(arguments.model, arguments.baseline, arguments.prior))
        address = start(page, arguments.host, arguments.port)
        with suppress(KeyboardInterrupt):
            print(f"{address} shows the page; Ctrl-C stops it", flush=True)
            if arguments.host not in LOOPBACK:
                print(f"everybody who reaches port {arguments.port} of this machine can use it", flush=True)
            threading.Event().wait()
        page.close(verbose=False)
