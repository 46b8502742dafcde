"""The command ``kdprompt``."""

import io
import sys

import typer
from rich.console import Console

from kdprompt.cli.bench import bench
from kdprompt.cli.demo import demo
from kdprompt.cli.doctor import doctor
from kdprompt.cli.profile import profile
from kdprompt.cli.reproduce import reproduce
from kdprompt.cli.select import select
from kdprompt.cli.tables import tables
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escapes what the console cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (KDPromptError, ValueError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {_plain(error)}", soft_wrap=True)
        sys.exit(2)


def _plain(error: Exception) -> str:
    from rich.markup import escape

    return escape(str(error))
