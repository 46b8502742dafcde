"""The command ``kdprompt``."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import kdprompt
from kdprompt.cli.bench import bench
from kdprompt.cli.build import build
from kdprompt.cli.config import hoist_config, read_config
from kdprompt.cli.demo import demo
from kdprompt.cli.doctor import doctor
from kdprompt.cli.drift import drift
from kdprompt.cli.profile import profile
from kdprompt.cli.report import report
from kdprompt.cli.reproduce import reproduce
from kdprompt.cli.select import select
from kdprompt.cli.tables import tables
from kdprompt.cli.terminal import Terminal, plain, prepare_streams
from kdprompt.errors import KDPromptError

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """The commands; ``--config`` may stand behind them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Arguments with ``--config`` in front."""
        return super().parse_args(ctx, hoist_config(args))


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"kdprompt {kdprompt.__version__}")
        raise typer.Exit


@app.callback()
def configure(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help='TOML file with options: pool = "…", [select] k = 4; flags win.', exists=True, dir_okay=False
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Chooses which demonstrations go into a prompt, how many, and in which order."""
    if config is not None:
        command: Any = context.command
        context.default_map = read_config(config, command.commands)


app.command()(select)
app.command()(build)
app.command()(report)
app.command()(demo)
app.command()(bench)
app.command()(tables)
app.command()(profile)
app.command()(doctor)
app.command()(drift)
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
    from pydantic import ValidationError

    if isinstance(error, ValidationError):  # of an option that was taken over as it is
        from kdprompt.storage.gate import explain_error

        return explain_error(error)
    return str(error.format_message() if _is_usage_error(error) else error)


def _print_usage(error: Any, log: Terminal) -> None:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # has shown the help
        sys.exit(2)
    if context is not None:
        log.print(context.get_usage())
        log.print(f"Try '{context.command_path} --help' for help.", style="dim")
