"""Connections to ClickHouse servers: a driver client per thread and kind, failover, and what their errors mean.

A client is not thread-safe and reads either numpy columns or lists. Hosts are tried in order; a dead one is passed over
when a connection is made, never in the middle of a write. A server that dies shows as a bare EOFError or OSError: for a
write that means unknown.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Iterator, Mapping

from clickhouse_driver import Client, errors

from collector.store import OutcomeUnknownError, StoreError
from collector.store.errors import from_code
from collector.store.settings import StoreSettings

_BROKEN = (EOFError, OSError, errors.NetworkError, errors.SocketTimeoutError, errors.UnexpectedPacketFromServerError)
# The driver falls back to its generic column for Enum8 and says so for every block.
logging.getLogger("clickhouse_driver.columns.service").setLevel(logging.ERROR)
_CODES: Mapping[int, str] = {v: k for k, v in vars(errors.ErrorCodes).items() if isinstance(v, int)}


class Connections:
    """Connected clients of one `StoreSettings`; its hosts are replicas of the same data."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._password = settings.password()
        self._addresses = settings.addresses()
        self._local = threading.local()
        self._clients: list[Client] = []
        self._lock = threading.Lock()
        self._preferred = 0

    def client(self, *, numpy: bool) -> Client:
        """This thread's connected client. Raises StoreError (nothing was done) when no host can be reached."""
        problems = []
        count = len(self._addresses)
        for step in range(count):
            number = (self._preferred + step) % count
            clients: dict[tuple[int, bool], Client] = self._local.__dict__.setdefault("clients", {})
            client = clients.get((number, numpy))
            if client is None:
                client = self._new(self._addresses[number], numpy=numpy)
                clients[number, numpy] = client
                with self._lock:
                    self._clients.append(client)
            try:
                _ready(client)
            except errors.ServerException as error:
                client.disconnect()
                raise _server_error(error, writing=False) from None
            except (*_BROKEN, errors.PartiallyConsumedQueryError) as error:
                client.disconnect()
                problems.append(f"{_at(self._addresses[number])}: {str(error).strip() or type(error).__name__}")
                continue
            self._preferred = number
            return client
        raise StoreError(f"no ClickHouse server can be reached: {'; '.join(problems)}", retryable=True)

    def execute_everywhere(self, sql: str) -> None:
        """Run a statement on every host; one that refuses connections runs nothing and is left out.

        Raises StoreError, also for a host that does not say whether it runs something.
        """
        for address in self._addresses:
            client = self._new(address, numpy=False)
            try:
                _ready(client)
            except _BROKEN as error:
                if (isinstance(error, OSError) and error.errno == errno.ECONNREFUSED) or "refused" in str(error):
                    continue
                raise StoreError(
                    f"{_at(address)} does not say whether an insert runs: {error}", retryable=True
                ) from error
            try:
                with store_errors(client, writing=False):
                    client.execute(sql)
            finally:
                client.disconnect()

    def close(self) -> None:
        """Close the connections of every thread."""
        with self._lock:
            clients, self._clients = self._clients, []
        for client in clients:
            client.disconnect()
        self._local = threading.local()

    def _new(self, address: tuple[str, int], *, numpy: bool) -> Client:
        chosen = self._settings
        tls = {"ca_certs": chosen.ca, "certfile": chosen.cert, "keyfile": chosen.key}
        return Client(
            address[0],
            port=address[1],
            database=chosen.database,
            user=chosen.user,
            password=self._password,
            client_name="tailsight",
            secure=chosen.secure,
            verify=chosen.verify,
            check_hostname=chosen.verify,
            connect_timeout=chosen.connect_timeout_s,
            compression="lz4" if chosen.compression else False,
            settings={"use_numpy": numpy, "server_side_params": True, "insert_block_size": 1_048_576},
            **{name: value for name, value in tls.items() if value},
        )


@contextlib.contextmanager
def store_errors(client: Client, *, writing: bool) -> Iterator[None]:
    """Driver and socket errors as `StoreError`; the connection is dropped when its state is not known."""
    try:
        yield
    except errors.ServerException as error:
        raise _server_error(error, writing=writing) from None
    except (*_BROKEN, errors.Error) as error:
        client.disconnect()
        what = f"the connection to {client.connection.host} broke: {str(error).strip() or type(error).__name__}"
        if writing:
            raise OutcomeUnknownError(what) from error
        raise StoreError(what, retryable=True) from error
    except BaseException:
        client.disconnect()
        raise


def _server_error(error: errors.ServerException, *, writing: bool) -> StoreError:
    sentence = str(error.message).partition("Stack trace:")[0].strip().removeprefix("DB::Exception: ")
    return from_code(error.code, _CODES.get(error.code, "UNKNOWN"), sentence, writing=writing)


def _ready(client: Client) -> None:
    """Connect, or see that the connection still answers (the driver's own `force_connect` belongs to a query)."""
    connection = client.connection
    if not connection.connected or not connection.ping():
        connection.connect()


def _at(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"
