"""Run `hdm/demo` on a cluster of local processes: `make cluster-demo`.

The processes are those of infra/compose.yaml, on loopback; all of them are stopped at the end. Ray's nodes have the addresses 127.0.0.2
to 127.0.0.4: Ray would replace 127.0.0.1 with the machine's external address. Secrets are generated for each run.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import psutil
import typer
from prometheus_client.parser import text_string_to_metric_families
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from tests.support.s3_server import free_ports, serve

ROOT = Path(__file__).parents[1]
STARTED = time.monotonic()
HEAD, *NODES = "127.0.0.2", "127.0.0.3", "127.0.0.4"
START_TIMEOUT = 120.0  # seconds until a process counts as failed to start
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory=200000000", "--disable-usage-stats"]


@dataclass
class Demo:
    """Processes with their logs in one folder; the stack ends them in reverse order."""

    stack: ExitStack
    folder: Path

    def start(self, name: str, command: list[str], ready: str | Callable[[], object] | None = None, user: str | None = None) -> None:
        """Start a process and wait until it is ready.

        The process gets its own session, so that Ctrl-C reaches the demo only.

        Args:
            ready: text in its log that means ready, or a call that raises OSError or httpx.TransportError until then; None waits for
                the end of the process.
            user: account that runs the process, if not the current one.
        """
        log = self.folder / f"{name}.log"
        with log.open("wb") as output, deferred_interrupts():  # a process that is started is also one that the stack ends
            home = "/" if user else ROOT  # another user may have no access to this folder
            process = subprocess.Popen(command, cwd=home, stdout=output, stderr=output, start_new_session=True, user=user)
            self.stack.callback(_terminate, process)

        def check() -> None:
            code = process.poll()
            if code or (code == 0 and ready is not None):
                raise SystemExit(f"{name} ended with {code}:\n{tail(log)}")
            if callable(ready):
                ready()
            elif ready not in log.read_text(errors="replace") if ready else code is None:
                raise OSError(f"{name} takes too long:\n{tail(log)}")

        not_ready = retry_if_exception_type((OSError, httpx.TransportError))
        Retrying(retry=not_ready, wait=wait_fixed(0.3), stop=stop_after_delay(START_TIMEOUT), reraise=True)(check)
        log_line(f"{name}: ready")


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end of the context for signals that arrive in it."""
    arrived: list[int] = []
    handlers = {each: signal.signal(each, lambda number, _: arrived.append(number)) for each in INTERRUPTS}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    if arrived:
        raise KeyboardInterrupt


def _terminate(process: subprocess.Popen[bytes]) -> None:
    try:
        processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=15)
    for remaining in alive:
        remaining.kill()
    psutil.wait_procs(alive, timeout=5)


def log_line(text: str) -> None:
    """Print one line with the seconds since the start of the demo."""
    typer.echo(f"[{time.monotonic() - STARTED:5.1f} s] {text}")


def tail(log: Path) -> str:
    """Return the last 30 lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])


def postgres(demo: Demo, folder: Path, port: int) -> str:
    """Start a new database with a password and return its URL."""
    servers = [*Path("/usr/lib/postgresql").glob("*/bin/postgres"), *filter(None, [shutil.which("postgres")])]
    if not servers:
        raise SystemExit("Postgres is not installed: install Debian's package postgresql, or put initdb and postgres on the PATH")
    binaries, data, password = Path(servers[-1]).resolve().parent, folder / "data", secrets.token_urlsafe()
    (folder / "password").write_text(password)
    user = "nobody" if os.geteuid() == 0 else None  # Postgres refuses to run as root
    for path in [folder, folder / "password"] if user else []:
        shutil.chown(path, user)
    initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "prefect", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}"]
    demo.start("initdb", [*initdb, "-N"], user=user)
    server = [str(binaries / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
    demo.start("postgres", server, lambda: socket.create_connection(("127.0.0.1", port), 1).close(), user)
    return f"postgresql://prefect:{password}@127.0.0.1:{port}/postgres"


async def flow_runs(url: str) -> int:
    """Count the flow runs in the database."""
    async with asyncpg.create_pool(url, min_size=1) as pool:
        return int(await pool.fetchval("SELECT count(*) FROM flow_run"))


def images_by_node(ports: dict[str, int]) -> dict[str, int]:
    """Read the number of explained images from each node's metrics."""
    images = {}
    for address, port in ports.items():
        families = text_string_to_metric_families(httpx.get(f"http://{address}:{port}/metrics", timeout=10).text)
        images[address] = int(sum(s.value for family in families for s in family.samples if s.name == "ray_hdm_images_total"))
    return images


def run(stack: ExitStack) -> int:
    """Start the cluster, run the deployment and return its exit code."""
    logs, data = (Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-", dir="/tmp"))) for _ in range(2))
    demo = Demo(stack, logs)
    postgres_port, api, ray, client, *metrics = free_ports(7)
    ports = dict(zip((HEAD, *NODES), metrics, strict=True))

    database = postgres(demo, data, postgres_port)
    storage = stack.enter_context(serve())
    log_line("seaweedfs: ready")
    os.environ.update(storage.environment)
    os.environ.update(
        AWS_ENDPOINT_URL=storage.storage["endpoint_url"],
        AWS_DEFAULT_REGION="us-east-1",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        # A node asks the head three times with this timeout. With Ray's 5 s a node gave up on a loaded machine.
        RAY_gcs_rpc_server_connect_timeout_s="20",
        PREFECT_HOME=str(logs / "prefect"),
        PREFECT_API_URL=f"http://127.0.0.1:{api}/api",
        PREFECT_API_DATABASE_CONNECTION_URL=database.replace("://", "+asyncpg://"),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_WORKER_QUERY_SECONDS="2",
        DO_NOT_TRACK="1",
        PWD=str(ROOT),
    )
    head = ["--head", f"--port={ray}", f"--ray-client-server-port={client}", "--include-dashboard=false", f"--temp-dir={logs}/ray"]
    for address in ports:
        flags = [*head, "--num-cpus=0"] if address == HEAD else [f"--address={HEAD}:{ray}", "--num-cpus=1"]
        node = [*RAY, f"--node-ip-address={address}", f"--metrics-export-port={ports[address]}", *flags]
        demo.start(f"ray {address}", node, "Ray runtime started")

    server = ["server", "start", "--host", "127.0.0.1", "--port", str(api), "--no-ui"]
    demo.start("prefect server", [*PREFECT, *server], lambda: httpx.get(f"{os.environ['PREFECT_API_URL']}/health", timeout=5))
    demo.start("work pool", [*PREFECT, "work-pool", "create", "hdm", "--type", "process"])
    demo.start("deployments", [*PREFECT, "deploy", "--all"])
    demo.start("prefect worker", [*PREFECT, "worker", "start", "--pool", "hdm"], "started")

    output = f"{storage.url}/cluster-demo"
    fast = {"compute.ray_address": f"{HEAD}:{ray}", "hdm.steps": 1, "hdm.mix_steps": 1}
    parameters = {"output": output, "limit": 4, "changes": fast}
    arguments = [part for name, value in parameters.items() for part in ("--param", f"{name}={json.dumps(value)}")]
    log_line(f"prefect deployment run hdm/demo: four photographs, to {output}")
    code = subprocess.run([*PREFECT, "deployment", "run", "hdm/demo", "--watch", *arguments], cwd=ROOT, check=False).returncode
    if code:
        log_line(f"the deployment failed:\n{tail(logs / 'prefect worker.log')}")
        return code
    subprocess.run([Path(sys.executable).with_name("hdm"), "tables", f"{output}/demo"], check=True, cwd=ROOT)
    log_line(f"flow runs in Postgres: {asyncio.run(flow_runs(database))}")
    log_line("images by node: " + ", ".join(f"{address} {images}" for address, images in images_by_node(ports).items()))
    return 0


def main() -> None:
    """Run the demo; Ctrl-C, SIGTERM and a closed terminal also stop all processes."""
    for interrupt in INTERRUPTS:
        signal.signal(interrupt, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            try:
                code = run(stack)
            finally:
                for interrupt in INTERRUPTS:
                    signal.signal(interrupt, signal.SIG_IGN)
                log_line("stopping all processes")
    except KeyboardInterrupt:
        code = 130
    log_line("all processes are stopped")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
