"""The edge of the command line: every way to fail becomes one clear line on stderr, and an exit code."""

import os
import sys
import traceback

import click

from agent.cli.context import Context
from agent.cli.talk import emit, printable, say
from agent.errors import INTERNAL_EXIT_CODE, INTERRUPTED_EXIT_CODE, DiskFull, SystemRefused, is_disk_full
from broker.errors import HutchError


def explain(error: BaseException, context: Context) -> int:
    """Say what went wrong, and return the exit code."""
    error = first_cause(error)
    if isinstance(error, BrokenPipeError | SystemExit):  # click makes the latter of the former
        _drop_output()
        return INTERRUPTED_EXIT_CODE
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return INTERRUPTED_EXIT_CODE
    if isinstance(error, click.ClickException):
        error.show(sys.stderr)
        return error.exit_code
    known = translate(error)
    if known is not None:
        return _tell(context, known.code, str(known), known.exit_code)
    if context.debug:
        traceback.print_exception(error, file=sys.stderr)
    message = f"this should not have happened: {type(error).__name__}: {error} (`hutch --debug …` shows more)"
    return _tell(context, "internal", message, INTERNAL_EXIT_CODE)


def first_cause(error: BaseException) -> BaseException:
    """What a group of errors is about: the first of ours in it, else the first of all."""
    while isinstance(error, BaseExceptionGroup):
        ours = error.subgroup(HutchError)
        error = (ours or error).exceptions[0]
    return error


def translate(error: BaseException) -> HutchError | None:
    """An error of ours, for one of the operating system's; None for a defect."""
    if isinstance(error, HutchError):
        return error
    if is_disk_full(error):
        return DiskFull("the disk is full: make room, and try again")
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return SystemRefused(f"{where}{error.strerror or error}")
    return None


def _drop_output() -> None:
    """Whoever read stdout has gone: what is still in its buffer must not fail once more when the process ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _tell(context: Context, code: str, message: str, exit_code: int) -> int:
    line = printable(" ".join(message.split()))
    say(f"hutch: {line}")
    if context.json:
        emit(context, {"error": {"code": code, "message": line, "exit_code": exit_code}}, "")
    return exit_code
