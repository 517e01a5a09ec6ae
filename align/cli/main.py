"""The command `align`.

Every command is a plain function in a module of its own; heavy libraries are imported inside it,
so that `align --help` answers at once. Errors are shown here, in one place.
"""

from __future__ import annotations

import errno
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from align.cli.chat import chat
from align.cli.common import DEBUG, errors, show_bug, show_error, too_long
from align.cli.describe import describe
from align.cli.eval import eval
from align.cli.export import export
from align.cli.grpo import grpo
from align.cli.inspect_data import inspect_data
from align.cli.plan import plan
from align.cli.report import report
from align.cli.rewards import app as rewards
from align.cli.rm import rm
from align.cli.run import run
from align.cli.sft import sft
from align.errors import AlignError


class _Group(TyperGroup):
    """Takes ``--debug`` anywhere on the line and turns exceptions into messages and exit codes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            os.environ[DEBUG] = "1"
            args = [arg for arg in args[:end] if arg != "--debug"] + args[end:]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except AlignError as error:
            show_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            errors.print("interrupted")
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # of an argument
                show_error(too_long(error))
                raise typer.Exit(AlignError.exit_code) from error
            show_bug(error)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"align {version('align')}")
        except PackageNotFoundError:  # a checkout that was not installed
            typer.echo("align (not installed)")
        raise typer.Exit


@app.callback(
    epilog="Start here: [bold]align run recipes/quickstart/pipeline.yaml[/]. "
    "Every command explains itself with --help; [bold]align describe[/] lists every recipe key."
)
def align(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show tracebacks; may stand anywhere on the line. Also ALIGN_DEBUG=1."),
    ] = False,
) -> None:
    """Post-training of language models: supervised fine-tuning, reward models, GRPO."""


_TRAIN, _LOOK = "Train and measure", "Look and prepare"
app.command("run", rich_help_panel=_TRAIN)(run)
app.command("sft", rich_help_panel=_TRAIN)(sft)
app.command("rm", rich_help_panel=_TRAIN)(rm)
app.command("grpo", rich_help_panel=_TRAIN)(grpo)
app.command("eval", rich_help_panel=_TRAIN)(eval)
app.command("chat", rich_help_panel=_LOOK)(chat)
app.command("describe", rich_help_panel=_LOOK)(describe)
app.command("export", rich_help_panel=_LOOK)(export)
app.command("inspect-data", rich_help_panel=_LOOK)(inspect_data)
app.command("plan", rich_help_panel=_LOOK)(plan)
app.command("report", rich_help_panel=_LOOK)(report)
app.add_typer(rewards, name="rewards", rich_help_panel=_LOOK)


def main() -> None:
    """Entry point of the installed command."""
    app(prog_name="align")


if __name__ == "__main__":
    main()
