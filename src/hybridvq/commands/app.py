"""`hybridvq app`."""

import importlib.util
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.arguments import add_device_argument, add_model_argument
from hybridvq.errors import ConfigError
from hybridvq.extras import lacking
from hybridvq.printing import say
from hybridvq.saved import model_folder, prior_folder, read_prior_config

SUMMARY = "Show models in a web page."
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ENDINGS = ("SIGTERM", "SIGHUP")  # how a service manager and a closing terminal end a program


def add_arguments(parser: ArgumentParser, words: Sequence[str]) -> None:
    add_model_argument(parser, words, "the tokenizer to show", default="photos-gain-shape")
    parser.add_argument("--baseline", type=str, default="photos-vq", help="the tokenizer to show beside it")
    parser.add_argument("--prior", type=str, default="cifar10-prior", help="what draws new pictures")
    parser.add_argument("--hybrid", type=str, default="photos", help="the hybrid tokenizer that compresses")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, default=7860, help="of the page's address")
    parser.add_argument(
        "--allowed_hosts", type=str, nargs="+", default=[], help="names other than its own that the page is reached by"
    )
    add_device_argument(parser)


def run(arguments: Namespace, words: Sequence[str]) -> None:
    if not 1 <= arguments.port <= 65535:
        raise ConfigError(f"--port is {arguments.port}; it must lie between 1 and 65535")
    if importlib.util.find_spec("gradio") is None:
        raise lacking("gradio")
    for model in (arguments.model, arguments.baseline, arguments.hybrid):
        model_folder(model)
    read_prior_config(prior_folder(arguments.prior))
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from hybridvq.app.door import hosts_of
    from hybridvq.app.models import load_models
    from hybridvq.app.page import build_page, build_site, serve
    from hybridvq.app.uploads import Uploads, run_folder

    hosts = hosts_of(arguments.host, arguments.allowed_hosts)
    with ended_as_by_ctrl_c(), run_folder() as folder:
        uploads = Uploads(folder)
        models = (arguments.model, arguments.baseline, arguments.prior, arguments.hybrid)
        page = build_page(load_models(*models, arguments.device), uploads)
        site = build_site(page, uploads, arguments.host, arguments.allowed_hosts)
        with serve(site, arguments.host, arguments.port) as address, suppress(KeyboardInterrupt):
            say(f"{address} shows the page; Ctrl-C stops it")
            if arguments.host not in LOOPBACK:
                say(
                    f"everybody who reaches port {arguments.port} of this machine can use it, as {', '.join(hosts)}; "
                    "--allowed-hosts adds names"
                )
            threading.Event().wait()


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """What ends the program leaves nothing behind either."""
    found = [getattr(signal, name) for name in ENDINGS if hasattr(signal, name)]
    numbers = [number for number in found if signal.getsignal(number) == signal.SIG_DFL]  # not what is answered already
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
