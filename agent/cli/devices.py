"""`hutch devices`: the account's devices, as the service knows them."""

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
    return f"{printable(fields['name'])}{mark}\tlinked {fields['created_at']}\tseen {fields['seen_at'] or 'never'}"
