"""What one stack consists of, and how its programs are told of each other."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import ssl
import subprocess
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker import topology
from deploy import bootstrap, probe, processes
from deploy.keep import Ports, Secrets, read_json, write_json
from deploy.processes import Command
from deploy.servers import S3, BrokerUser, Epmd, Postgres, RabbitMQ, Server
from deploy.talk import DeployError

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to knock when a server listens on all
_LOOPBACK = ("127.", "::1", "localhost")
_OWN_FOLDERS = ("run", "logs", "blocks", "tls")
_OWN_FILES = {"options.json", "ports.json", "secrets.json", "admin.json"}
_OF_NOBODY = {"lost+found"}  # what a new file system holds


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the stack was asked to be. Kept with the data, so that the next `up` need not repeat it."""

    workers: int = 2
    store: str = "local"
    listen: str | None = None  # address for devices elsewhere; None: loopback alone
    public_url: str | None = None
    tls_cert: str | None = None  # None: one of our own authority
    tls_key: str | None = None
    allow_plaintext: bool = False

    @classmethod
    def kept(cls, folder: Path) -> Options:
        """The options of the last `up` in this folder."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(
            **{key: value for key, value in read_json(folder / "options.json").items() if key in known}
        )

    def keep(self, folder: Path) -> None:
        """Keep them for the next `up`."""
        write_json(folder / "options.json", dataclasses.asdict(self))

    def check(self, folder: Path) -> None:
        """Refuse what cannot work.

        Raises:
            DeployError: With what to say instead.
        """
        if self.workers < 1:
            raise DeployError("At least one worker is needed: --workers 1")
        before = read_json(folder / "options.json").get("store")
        if before is not None and before != self.store:
            raise DeployError(
                f"The blocks of {folder} lie in the store `{before}`: start with --store {before}."
            )
        if (self.listen is None) != (self.public_url is None):
            raise DeployError(
                "--listen and --public-url belong together: where to listen, and what devices call it."
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise DeployError("--tls-cert and --tls-key belong together.")
        if self.public_url is not None:
            url = urllib.parse.urlsplit(self.public_url)
            if url.scheme not in ("https", "http") or url.hostname is None:
                raise DeployError("--public-url is like https://hutch.example.org:8443")
            if (
                url.scheme == "http"
                and not self.allow_plaintext
                and not str(self.listen).startswith(_LOOPBACK)
            ):
                raise DeployError(
                    "Files and passwords would cross the network readable for all: use https in --public-url, or say "
                    "--allow-plaintext."
                )
            if url.scheme == "http" and self.tls_cert is not None:
                raise DeployError("A certificate needs https in --public-url.")


class Program:
    """One of our own programs: configured by its environment alone, and ready when it says so over HTTP."""

    stop_signal = signal.SIGTERM
    stop_patience_s = 20.0

    def __init__(
        self,
        name: str,
        module: str,
        folder: Path,
        settings: Mapping[str, str],
        *,
        address: str,
        port: int,
        tls: bool,
    ) -> None:
        self.name = name
        self._module = module
        self._folder = folder
        self._settings = settings
        self._address = _ANY_ADDRESS.get(address, address)
        self._port = port
        self._tls = tls

    def prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        return Command(
            arguments=(str(bootstrap.VENV_PYTHON), "-m", self._module),
            folder=bootstrap.CHECKOUT,
            log=self._folder / "logs" / f"{self.name}.log",
            settings=self._settings,
        )

    def is_ready(self) -> bool:
        return probe.http_status(self._address, self._port, "/health/ready", tls=self._tls) == 200


class Stack:
    """All of one data folder: its servers and programs in the order in which they start.

    Choosing ports and passwords is part of making it, so make it only while none of its programs runs.

    Args:
        folder: The data folder.
        options: How it shall be.
        new_ports: Whether a port that devices know, and that another program has taken, is given up for a new one.

    Raises:
        DeployError: Another program has taken a port that devices know.
    """

    def __init__(self, folder: Path, options: Options, *, new_ports: bool = False) -> None:
        self.folder = folder
        self._options = options
        ports, secrets = Ports(folder, may_move=new_ports), Secrets(folder)
        ports.get("amqp", is_told=options.listen is None)
        self.postgres = Postgres(folder, ports, secrets)
        self.epmd = Epmd(folder, ports)
        metadata_user, worker_user = _broker_users(secrets)
        self.rabbitmq = RabbitMQ(folder, ports, secrets, self.epmd, (metadata_user, worker_user))
        self._s3 = S3(folder, ports, secrets) if options.store == "s3" else None

        url = urllib.parse.urlsplit(options.public_url or "http://127.0.0.1")
        host = url.hostname or "127.0.0.1"
        shown = f"[{host}]" if ":" in host else host
        address = options.listen or "127.0.0.1"
        tls = url.scheme == "https"
        metadata_port = url.port or ports.get("metadata", address, is_told=True)
        gateway_port = ports.get("gateway", address, is_told=True)
        self.metadata_url = f"{url.scheme}://{shown}:{metadata_port}"
        self.gateway_url = f"{url.scheme}://{shown}:{gateway_port}"
        self._public_amqp_url = f"amqp://127.0.0.1:{self.rabbitmq.port}/{self.rabbitmq.vhost}"

        self._tls_files: tuple[Path, Path, Path] | None = None
        self._certificate_hosts: list[str] = []
        if tls and options.tls_cert is not None and options.tls_key is not None:
            certificate = Path(options.tls_cert)
            self._tls_files = (certificate, certificate, Path(options.tls_key))
        elif tls:
            own = folder / "tls"
            self._tls_files = (own / "ca.pem", own / "server.pem", own / "server.key")
            self._certificate_hosts = [
                host,
                *([] if address in _ANY_ADDRESS else [address]),
                "localhost",
                "127.0.0.1",
            ]
        if options.listen is not None:
            broker_port = ports.get("amqp-public", address, is_told=True)
            self.rabbitmq.expose(address, broker_port, self._tls_files)
            scheme = "amqps" if tls else "amqp"
            self._public_amqp_url = f"{scheme}://{shown}:{broker_port}/{self.rabbitmq.vhost}"

        def listen(port: int) -> str:
            return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

        def program(
            name: str, module: str, port: int, settings: dict[str, str], *, public: bool = True
        ) -> Program:
            database = {"HUTCH_POSTGRES_DSN": self.postgres.dsn}
            where = address if public else "127.0.0.1"
            return Program(
                name, module, folder, database | settings, address=where, port=port, tls=tls and public
            )  # fmt: skip

        def certificate_settings(prefix: str) -> dict[str, str]:
            if self._tls_files is None:
                return {}
            return {
                f"{prefix}_TLS_CERT": str(self._tls_files[1]),
                f"{prefix}_TLS_KEY": str(self._tls_files[2]),
            }

        authority = (
            {"HUTCH_METADATA_CA": str(self._tls_files[0])}
            if self._certificate_hosts and self._tls_files
            else {}
        )
        self.metadata_settings = {
            "HUTCH_AMQP_URL": self.rabbitmq.amqp_url_for(metadata_user),
            **authority,
            **certificate_settings("HUTCH_METADATA"),
            "HUTCH_MANAGEMENT_URL": self.rabbitmq.management_url_for(metadata_user),
            "HUTCH_METADATA_LISTEN": listen(metadata_port),
            "HUTCH_METADATA_PUBLIC_GATEWAY_URL": self.gateway_url,
            "HUTCH_METADATA_PUBLIC_AMQP_URL": self._public_amqp_url,
        }
        gateway_settings = {
            **certificate_settings("HUTCH_GATEWAY"),
            **self._store_settings(),
            "HUTCH_GATEWAY_LISTEN": listen(gateway_port),
        }
        #: In the order in which they start; they are stopped in the reverse order.
        self.servers: list[Server] = [self.postgres, self.epmd, self.rabbitmq]
        if self._s3 is not None:
            self.servers.append(self._s3)
        #: Started when the servers are ready and the schema is the newest.
        self.programs: list[Server] = [
            program("metadata", "metadata.server", metadata_port, self.metadata_settings),
            program("gateway", "block_gateway", gateway_port, gateway_settings),
        ]
        for number in range(1, options.workers + 1):
            port = ports.get(f"worker-{number}")
            worker_settings = {
                "HUTCH_AMQP_URL": self.rabbitmq.amqp_url_for(worker_user),
                "HUTCH_WORKERS_RELAY_USER": metadata_user.name,
                "HUTCH_WORKERS_METRICS_LISTEN": f"127.0.0.1:{port}",
            }
            self.programs.append(
                program(f"worker-{number}", "sync_workers", port, worker_settings, public=False)
            )

    def prepare(self) -> None:
        """Make what is no one program's: the folder, the certificates, the settings that `hutch-admin` reads.

        Raises:
            DeployError: The certificates given do not work.
        """
        open_folder(self.folder)
        if self._certificate_hosts:
            done = subprocess.run(
                [bootstrap.VENV_PYTHON, "-m", "deploy.certificates", self.folder / "tls", *self._certificate_hosts],
                cwd=bootstrap.CHECKOUT, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode != 0:
                raise DeployError(f"The certificates could not be made:\n{done.stderr}")
        elif self._tls_files is not None:
            try:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*self._tls_files[1:])
            except (OSError, ssl.SSLError) as error:
                raise DeployError(f"The certificate and key given do not work: {error}") from error
        write_json(
            self.folder / "admin.json",
            {
                **self.metadata_settings,
                "HUTCH_POSTGRES_DSN": self.postgres.dsn,
                "HUTCH_METADATA_URL": self.metadata_url,
                "HUTCH_GATEWAY_URL": self.gateway_url,
                **self._store_settings(),
            },
        )

    def clear(self) -> None:
        """Remove what a server leaves behind outside the data folder. Call once none runs."""
        if self._s3 is not None:
            self._s3.clear()

    def migrate(self) -> None:
        """Bring the schema to the newest version.

        Raises:
            DeployError: It could not. The message shows the end of the log.
        """
        log = self.folder / "logs" / "migrate.log"
        command = Command(
            arguments=(str(bootstrap.VENV_PYTHON), "-m", "metadata.migrate"),
            folder=bootstrap.CHECKOUT,
            log=log,
            settings={"HUTCH_POSTGRES_DSN": self.postgres.dsn},
        )
        process = processes.start(command, self.folder)
        if process.wait() != 0:
            raise DeployError(
                f"The database's schema could not be brought up to date:\n{processes.tail(log)}"
            )

    def answer(self) -> dict[str, Any]:
        """What scripts are told of a stack; but for the pids, which change."""
        told = {
            "metadata_url": self.metadata_url,
            "gateway_url": self.gateway_url,
            "amqp_url": self.rabbitmq.amqp_url,
            "management_url": self.rabbitmq.management_url,
            "postgres_dsn": self.postgres.dsn,
            "data_dir": str(self.folder),
            "public_amqp_url": self._public_amqp_url,
        }
        if self._certificate_hosts and self._tls_files is not None:
            told["ca_file"] = str(self._tls_files[0])
            pem = self._tls_files[0].read_text()
            told["ca_fingerprint"] = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        return told

    def _store_settings(self) -> dict[str, str]:
        if self._s3 is None:
            return {"HUTCH_GATEWAY_STORE": f"local:{self.folder / 'blocks'}"}
        return {
            "HUTCH_GATEWAY_STORE": f"s3:{self._s3.bucket}",
            "HUTCH_GATEWAY_S3_ENDPOINT": self._s3.endpoint,
            "HUTCH_GATEWAY_S3_ACCESS_KEY": self._s3.access_key,
            "HUTCH_GATEWAY_S3_SECRET_KEY": self._s3.secret_key,
            "HUTCH_GATEWAY_S3_REGION": self._s3.region,
        }


def _broker_users(secrets: Secrets) -> tuple[BrokerUser, BrokerUser]:
    """The metadata server's, who makes users and queues, and the workers'."""
    metadata = BrokerUser(
        name="hutch-metadata",
        password=secrets.get("rabbitmq-metadata"),
        permissions={"configure": ".*", "write": ".*", "read": ".*"},
        tags="administrator",  # `management` alone may make no users
    )
    workers = BrokerUser(
        name="hutch-workers",
        password=secrets.get("rabbitmq-workers"),
        permissions=topology.WORKER_PERMISSIONS,
    )
    return metadata, workers


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something, and nothing of ours: it would be closed to all others. Changes nothing.

    Raises:
        DeployError: It is such a one.
    """
    names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if names - _OF_NOBODY - set(_OWN_FOLDERS) and not names & _OWN_FILES:
        raise DeployError(
            f"{folder} holds something, and nothing of Hutch's: name an empty folder, or a new one, with --data"
        )


def open_folder(folder: Path) -> None:
    """Make the data folder: its owner's alone; as root, others may pass through it, so that PostgreSQL's user can.

    Raises:
        DeployError: It is somebody else's, as `check_folder` says.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    for name in _OWN_FOLDERS:
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(0o700)
