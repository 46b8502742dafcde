"""The command ``kdprompt``."""

import sys
from typing import Any

import typer

from kdprompt.cli.bench import bench
from kdprompt.cli.demo import demo
from kdprompt.cli.doctor import doctor
from kdprompt.cli.profile import profile
from kdprompt.cli.reproduce import reproduce
from kdprompt.cli.select import select
from kdprompt.cli.tables import tables
from kdprompt.cli.terminal import Terminal, plain, prepare_streams
from kdprompt.errors import KDPromptError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Chooses which demonstrations go into a prompt, how many, and in which order.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(select)
app.command()(demo)
app.command()(bench)
app.command()(tables)
app.command()(profile)
app.command()(doctor)
app.command()(reproduce)


def main() -> None:
    """Runs the command; errors that name what is wrong are printed without a traceback, exit code 2."""
    prepare_streams()
    log = Terminal(stderr=True)
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        if _is_usage_error(error):
            _print_usage(error, log)
        elif not isinstance(error, KDPromptError | ValueError | OSError):
            raise
        log.print(plain("error: ", "bold red") + plain(_message(error)), soft_wrap=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _is_usage_error(error: Exception) -> bool:
    """Whether typer raised it; its class is click's or typer's own, by its version."""
    return hasattr(error, "format_message")


def _message(error: Any) -> str:
    return str(error.format_message() if _is_usage_error(error) else error)


def _print_usage(error: Any, log: Terminal) -> None:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # has shown the help
        sys.exit(2)
    if context is not None:
        log.print(context.get_usage())
        log.print(f"Try '{context.command_path} --help' for help.", style="dim")
