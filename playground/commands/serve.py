"""`playground serve`: start the app (`python app.py` is the same)."""

import argparse
import os

from playground.commands import add_settings, settings
from playground.config import Paths, ServeConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, ServeConfig)


def main(args: argparse.Namespace) -> None:
    config = settings(args, ServeConfig)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    # gradio sums up its latest events after each event, for a page of figures that is not on here: 10,000 of them
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")
    from playground.ui.app import launch

    launch(config, Paths())
