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
    from playground.ui.app import launch

    launch(config, Paths())
