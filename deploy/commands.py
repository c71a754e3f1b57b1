"""The command line of `deploy/local`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy import bootstrap, control, demo, processes, supervisor
from deploy.keep import read_json
from deploy.stack import Options, Stack, check_folder, open_folder
from deploy.supervisor import Lock, Supervisor
from deploy.talk import DeployError, say

NOT_RUNNING = 3

_EPILOG = """\
exit codes:
  0  done
  1  it could not be done; the last line says why
  2  the command line is wrong
  3  status: it does not run

Without --data all is kept in $HUTCH_DATA, or else in .hutch-data of the checkout.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        result: int = chosen.run(chosen)
        return result
    except DeployError as error:
        say(f"deploy/local: {error}")
        return 1
    except OSError as error:
        say(f"deploy/local: {_told(error)}")
        return 1
    except KeyboardInterrupt:
        return 130


def _run_up(chosen: argparse.Namespace) -> int:
    _install()
    folder = _folder(chosen)
    options = _options(chosen, folder)
    if chosen.foreground:
        return asyncio.run(_stay(folder, options, as_json=chosen.json, new_ports=chosen.new_ports))
    before = read_json(folder / "ports.json").get("metadata")
    answer = control.up(folder, options, new_ports=chosen.new_ports)
    _tell_started(answer, as_json=chosen.json)
    if before is not None and read_json(folder / "ports.json").get("metadata") != before:
        say(
            f"The service has another address than before: on each device `hutch unlink --force`, then `hutch link"
            f" {answer['metadata_url']}`."
        )
    return 0


def _told(error: OSError) -> str:
    """What the operating system refused, in a line."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


async def _stay(folder: Path, options: Options, *, as_json: bool, new_ports: bool) -> int:
    """Be the supervisor, until SIGTERM or Ctrl-C."""
    check_folder(folder)
    lock = Lock(folder)
    # Others take it for an instant to see whether it is held.
    if not await asyncio.to_thread(processes.wait_until, lock.take, 1.0):
        _tell_started(control.find_running(folder, options), as_json=as_json)
        return 0
    options.check(folder)
    open_folder(folder)
    supervisor.reclaim(folder)
    try:
        options.keep(folder)
        stack = Stack(folder, options, new_ports=new_ports)
        stack.prepare()
    except (DeployError, OSError) as error:
        supervisor.fail(folder, _told(error) if isinstance(error, OSError) else str(error))
        raise
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await Supervisor(stack).run(stop, lambda answer: _tell_started(answer, as_json=as_json))
    lock.release()
    return 0


def _run_down(chosen: argparse.Namespace) -> int:
    folder = _folder(chosen)
    say("Hutch is stopped; its data stay." if control.down(folder) else "Hutch did not run.")
    return 0


def _run_status(chosen: argparse.Namespace) -> int:
    told = control.status(_folder(chosen))
    if chosen.json:
        print(json.dumps(told, indent=2))
    elif told["running"]:
        _tell(told, as_json=False)
        print("\n".join(f"  {name:<12} pid {pid}" for name, pid in told["pids"].items()))
    else:
        print(f"Hutch does not run in {told['data_dir']}.")
    return 0 if told["running"] else NOT_RUNNING


def _run_install(chosen: argparse.Namespace) -> int:
    _install()
    return 0


def _run_demo(chosen: argparse.Namespace) -> int:
    _install()
    folder = _folder(chosen)
    return demo.run(folder, Options.kept(folder), once=chosen.once, new_ports=chosen.new_ports)


def _install() -> None:
    bootstrap.install_python()
    bootstrap.install_rabbitmq()


def _tell_started(answer: dict[str, Any], *, as_json: bool) -> None:
    _tell(answer, as_json=as_json)
    if as_json:
        return
    folder = Path(answer["data_dir"])
    # Where `hutch-admin` looks by itself.
    found = os.environ.get("HUTCH_DATA") or ".hutch-data"
    setting = "" if Path(os.path.realpath(found)) == folder else f"HUTCH_DATA={shlex.quote(str(folder))} "
    print("Next, an account, and on each of its devices:", flush=True)
    print(f"  {setting}{_program('hutch-admin')} user add you@example.org", flush=True)
    print(f"  {_program('hutch')} link {answer['metadata_url']} --email you@example.org", flush=True)


def _program(name: str) -> str:
    """A program of ours as it can be typed here."""
    path = bootstrap.VENV / "bin" / name
    return shlex.quote(str(path.relative_to(Path.cwd()) if Path.cwd() == bootstrap.CHECKOUT else path))


def _tell(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer), flush=True)
    else:
        print(f"Hutch runs. Link a device to {answer['metadata_url']}", flush=True)
        if (fingerprint := answer.get("ca_fingerprint")) is not None:
            shown = ":".join(fingerprint[at : at + 2] for at in range(0, len(fingerprint), 2))
            print(f"The SHA-256 fingerprint that `hutch link` shows must be\n  {shown}", flush=True)
        print(f"Its data are in {answer['data_dir']}", flush=True)


def _folder(chosen: argparse.Namespace) -> Path:
    given = chosen.data or os.environ.get("HUTCH_DATA") or bootstrap.CHECKOUT / ".hutch-data"
    # The true path: two names of one folder must not become two stacks.
    return Path(os.path.realpath(Path(given).expanduser()))


def _options(chosen: argparse.Namespace, folder: Path) -> Options:
    """The kept options, with what was said now put over them."""
    said = {
        "workers": chosen.workers,
        "store": chosen.store,
        "listen": chosen.listen,
        "public_url": chosen.public_url,
        "tls_cert": _absolute(chosen.tls_cert),
        "tls_key": _absolute(chosen.tls_key),
        "allow_plaintext": chosen.allow_plaintext or None,
    }
    return dataclasses.replace(
        Options.kept(folder), **{key: value for key, value in said.items() if value is not None}
    )


def _folder_name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it must name a folder")
    return text


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deploy/local",
        description="Hutch on this machine: RabbitMQ, PostgreSQL, the block store and Hutch's own programs, all private.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="see two folders follow each other")
    demo.add_argument(
        "--once", action="store_true", help="make some changes, show them arrive, and take all down"
    )
    demo.set_defaults(run=_run_demo)

    start = commands.add_parser("up", help="start all")
    start.add_argument("--workers", type=int, metavar="N", help="how many sync workers (at first: 2)")
    start.add_argument("--store", choices=["local", "s3"], help="where the blocks are kept (at first: local)")
    start.add_argument("--json", action="store_true", help="print one JSON object once healthy")
    start.add_argument("--foreground", action="store_true", help="stay, and take all down on SIGTERM")
    start.add_argument(
        "--listen", metavar="ADDRESS", help="serve devices elsewhere on this address, over TLS"
    )
    start.add_argument(
        "--public-url", metavar="URL", help="what those devices call this machine: https://host[:port]"
    )
    start.add_argument("--tls-cert", metavar="FILE", help="a certificate of yours (PEM, with its chain)")
    start.add_argument("--tls-key", metavar="FILE", help="its key (PEM)")
    start.add_argument(
        "--allow-plaintext", action="store_true", help="let http cross the network, readable for all"
    )
    start.set_defaults(run=_run_up)

    show = commands.add_parser("status", help="show what runs")
    show.add_argument("--json", action="store_true", help="as one JSON object")
    show.set_defaults(run=_run_status)

    stop = commands.add_parser("down", help="stop all; the data stay")
    stop.set_defaults(run=_run_down)

    install = commands.add_parser("install", help="install what is missing, and start nothing")
    install.set_defaults(run=_run_install)

    for command in (demo, start):
        command.add_argument(
            "--new-ports",
            action="store_true",
            help="take another port where a program has taken one that devices are linked to",
        )
    for command in (demo, start, show, stop, install):
        command.add_argument("--data", type=_folder_name, metavar="DIR", help="where all is kept")
    return parser
