"""One module per subcommand, each with `add_arguments(parser)` and `main(args) -> dict | None`."""

import argparse
import typing

from playground import config


def add_settings(parser: argparse.ArgumentParser, config_class) -> None:
    """One flag per field of a config dataclass: `--learning-rate 0.001` or, for a truth value, `--open-browser`.

    Only flags that were given are in the parsed arguments, so that defaults stay in the dataclass.
    """
    hints = typing.get_type_hints(config_class)
    for field in config.fields(config_class):
        flag = "--" + field.name.replace("_", "-")
        # a literal % would be read as argparse's own formatting
        text = field.metadata["help"].replace("%", "%%")
        if hints[field.name] is bool:
            parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=text)
            continue
        default = field.default if field.default != "" else "empty"
        choices = field.metadata.get("choices")
        parser.add_argument(
            flag,
            default=argparse.SUPPRESS,
            metavar="{" + ",".join(choices) + "}" if choices else hints[field.name].__name__.upper(),
            help=f"{text} (default: {default})",
        )


def settings(args: argparse.Namespace, config_class):
    """The checked config from the flags that were given; PlaygroundError names the first bad value."""
    names = {field.name for field in config.fields(config_class)}
    return config.parse(config_class, {name: value for name, value in vars(args).items() if name in names})
