"""`hutch devices`: the account's devices, as the service knows them."""

from datetime import UTC, datetime

import click
import msgspec

from agent.cli.context import Context, pass_context
from agent.cli.talk import emit, json_option, printable


@click.command("devices")
@json_option
@pass_context
def command(context: Context) -> None:
    """List the devices of your account."""
    from agent.service import DeviceInfo

    async def ask() -> tuple[DeviceInfo, ...]:
        from agent.cli.reach import reach

        async with reach(context.home) as service:
            return await service.devices()

    devices = context.run(ask())
    emit(context, {"devices": msgspec.to_builtins(devices)}, "\n".join(map(_line, devices)))


def _line(device: object) -> str:
    fields = msgspec.to_builtins(device)
    mark = " (this one)" if fields["current"] else ""
    seen = _minute(fields["seen_at"]) if fields["seen_at"] else "never"
    return (
        f"{printable(fields['name'])}{mark}\t{fields['device_id']}"
        f"\tlinked {_minute(fields['created_at'])}\tseen {seen}"
    )


def _minute(time: str) -> str:
    """A time of the service's, to the minute, in UTC; as it came when it is none."""
    try:
        return f"{datetime.fromisoformat(time).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return printable(time)
