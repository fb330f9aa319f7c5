"""The page and its server."""

import gradio as gr

from hybridvq.app import markup, tabs
from hybridvq.app.models import Models
from hybridvq.errors import ConfigError

UPLOAD_SIZE = "64mb"
CACHE_SECONDS = (600, 600)  # how often uploads are looked through, and how old those are that were never read
WAITING = 32  # computations in the queue before new ones are turned away
SESSIONS = 32  # whose pictures are held: at most some tens of MB each
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
CSS = """
.gradio-container { width: 100% !important; max-width: 1280px !important; margin: 0 auto !important; }
.gradio-container .action { align-self: center; }
.gradio-container .html-container { padding: 0 !important; }
"""
LIGHT = "() => document.body.classList.remove('dark')"


def build_page(models: Models) -> gr.Blocks:
    """The page of these models."""
    with gr.Blocks(title="hybridvq", analytics_enabled=False, delete_cache=CACHE_SECONDS, fill_width=True) as page:
        gr.Markdown(f"# hybridvq\n{models.model.title}, beside {models.baseline.title}")
        with gr.Tab("Reconstruct"):
            tabs.reconstruct_tab(models, page)
        with gr.Tab("Compress"):
            tabs.compress_tab(models.model)
        with gr.Tab("Generate"):
            tabs.generate_tab(models.prior)
        with gr.Tab("Codebook") as tab:
            tabs.codebook_tab(models, tab)
        with gr.Tab("Compare"):
            tabs.compare_tab()
    return page.queue(max_size=WAITING)


def start(page: gr.Blocks, host: str, port: int) -> str:
    """Serve the page from threads of this process, and return its address.

    Raises:
        ConfigError: it cannot be served there.
    """
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            run_history=False,
            footer_links=[],
            max_file_size=UPLOAD_SIZE,
            state_session_capacity=SESSIONS,
            theme=gr.themes.Default(
                primary_hue="blue",
                neutral_hue="gray",
                font=FONTS,
                font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
            ),
            css=CSS + markup.CSS,
            js=LIGHT,
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"the page cannot be served at {host}:{port} ({reason}); choose another --host or --port"
        ) from error
    return address
