"""`hutch link`: make this a device of an account, once it is known whom the password is sent to."""

import platform

import click

from agent.cli.context import Context, pass_context
from agent.cli.talk import ask_password, emit, json_option, say
from agent.errors import AlreadyLinked
from agent.home import Credential
from broker.errors import Misconfigured


@click.command("link")
@click.argument("metadata_url")
@click.option("--email", required=True, help="The account.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin (one line).")
@click.option(
    "--device-name", help="What this device is called, in conflict copies too.  [default: its host name]"
)
@click.option(
    "--fingerprint", help="SHA-256 of the service's certificate authority, as its operator tells it."
)
@click.option("--allow-plaintext", is_flag=True, help="Let plain http leave this computer.")
@json_option
@pass_context
def command(
    context: Context,
    metadata_url: str,
    email: str,
    password_stdin: bool,
    device_name: str | None,
    fingerprint: str | None,
    allow_plaintext: bool,
) -> None:
    """Link this device to an account on a service (comes first).

    Over https, the system's trust store is tried first. A service with a certificate authority of its own shows
    its fingerprint once; compare it with the one that `deploy/local up` printed. It is kept from then on.
    """
    from agent.linking import Linking
    from agent.trust import check_url, plain_fingerprint

    _check_not_linked(context)
    try:
        url = check_url(metadata_url, allow_plaintext=allow_plaintext)
        expected = plain_fingerprint(fingerprint) if fingerprint else None
    except Misconfigured as error:
        raise click.UsageError(str(error)) from error
    linking = Linking(
        home=context.home,
        url=url,
        email=email,
        device_name=_device_name(device_name),
        fingerprint=expected,
        confirm=lambda shown: _confirm(shown, ask=context.interactive and not password_stdin),
        password=lambda: ask_password(context, password_stdin),
    )
    with context.home.lock():
        _check_not_linked(context)
        credential = context.run(linking.run())
    emit(context, _told(credential), f"linked: this is {credential.device_name!r} of {credential.email}")


def _check_not_linked(context: Context) -> None:
    credential = context.home.credential
    if credential is not None:
        raise AlreadyLinked(
            f"{context.home.root} is linked already, to {credential.metadata_url} as {credential.email}:"
            " run `hutch unlink` first, or set another HUTCH_HOME"
        )


def _device_name(given: str | None) -> str:
    name = (given if given is not None else platform.node() or "device").strip()
    if not 1 <= len(name) <= 64 or "/" in name or not name.isprintable():
        raise click.BadParameter("1 to 64 printable characters, without a slash", param_hint="--device-name")
    return name


def _confirm(fingerprint: str, *, ask: bool) -> bool:
    say("This service has a certificate authority of its own. Its fingerprint (SHA-256):")
    say("  " + ":".join(fingerprint[at : at + 2] for at in range(0, 64, 2)))
    if ask:
        return click.confirm("Is it the one that the service's operator told you?", err=True)
    say(
        "Trusted at first sight, since there is nobody to ask (--fingerprint would have checked it). Kept from now on."
    )
    return True


def _told(credential: Credential) -> dict[str, str]:
    return {
        "device_id": str(credential.device_id),
        "device_name": credential.device_name,
        "email": credential.email,
        "metadata_url": credential.metadata_url,
    }
