"""The command line of `deploy/local`."""

from __future__ import annotations

import argparse

from deploy import bootstrap
from deploy.talk import DeployError, say


def main() -> int:
    """Run one command, and return its exit code."""
    parser = argparse.ArgumentParser(prog="deploy/local")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install")
    parser.parse_args()
    try:
        bootstrap.install_python()
        bootstrap.install_rabbitmq()
    except DeployError as failure:
        say(f"deploy/local: {failure}")
        return 1
    return 0
