"""The store of the management: settings and unit states in SQLite, or in PostgreSQL by its URL.

What it keeps true:

- A save is one transaction, durable when it returns (SQLite: write-ahead log, synchronous=FULL).
- The database file is readable by its owner alone (S2): it holds the CHAP secrets.
- A database of a later schema version is refused, never guessed at; an older one is brought up to date.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from appliance.messages import Exposure, HostDefinition
from appliance.mic.settings import AluSetting, PoolSetting, Settings
from backstores.errors import CorruptError, TiergateError, UsageError

SCHEMA_VERSION: Final = "2"
UPGRADED: Final = frozenset({"1"})
"""Older versions that lack nothing but tables, which are made when a database is opened: 1 knows no legacy ALUs."""
FILE_NAME: Final = "tiergate.db"

_metadata = sa.MetaData()
_values = sa.Table(
    "value",
    _metadata,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("text", sa.String, nullable=False),
)
_alus = sa.Table(
    "alu",
    _metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("path", sa.String, nullable=False, unique=True),
    sa.Column("size_bytes", sa.BigInteger),
)
_legacy_alus = sa.Table("legacy_alu", _metadata, sa.Column("alu", sa.ForeignKey("alu.name"), primary_key=True))
_pools = sa.Table("pool", _metadata, sa.Column("name", sa.String, primary_key=True))
_members = sa.Table(
    "pool_member",
    _metadata,
    sa.Column("pool", sa.ForeignKey("pool.name"), primary_key=True),
    sa.Column("alu", sa.ForeignKey("alu.name"), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
)
_hosts = sa.Table(
    "host",
    _metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("iqn", sa.String, nullable=False, unique=True),
    *(sa.Column(c, sa.String, nullable=False) for c in ("chap_user", "chap_secret", "mutual_user", "mutual_secret")),
)
_exposures = sa.Table(
    "exposure",
    _metadata,
    sa.Column("host", sa.ForeignKey("host.name"), primary_key=True),
    sa.Column("volume", sa.String, primary_key=True),
    sa.Column("lun", sa.Integer, nullable=False),
    sa.UniqueConstraint("host", "lun"),
)
_units = sa.Table(
    "unit",
    _metadata,
    sa.Column("wwn", sa.String, primary_key=True),
    sa.Column("state", sa.LargeBinary, nullable=False),
)
SETTING_TABLES: Final = (_alus, _legacy_alus, _pools, _members, _hosts, _exposures)  # those referred to stand first

Row = Mapping[str, Any]


class StoreError(TiergateError):
    """The database can't be read or written now."""


class Store:
    """The database. Every call may wait for the disk, and may come from any thread."""

    def __init__(self, url: str) -> None:
        """Open the database, and make its tables if it is new.

        Raises:
            UsageError: the URL is wrong, or the schema is of another version.
            CorruptError: what is there is no database.
            StoreError: it can't be opened now.
        """
        self._shown_url = shown_url(url)
        try:
            # hide_parameters: the secrets are parameters, and errors reach the log
            self._engine = sa.create_engine(url, hide_parameters=True)
        except (SQLAlchemyError, ImportError) as error:
            raise UsageError(f"database URL {self._shown_url}: {error}") from error
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
        try:
            _metadata.create_all(self._engine)
            self._check_version()
        except OperationalError as error:
            self._engine.dispose()
            raise StoreError(f"database {self._shown_url} can't be opened: {error.orig}") from error
        except DBAPIError as error:
            self._engine.dispose()
            raise CorruptError(
                f"{self._shown_url} is no database of ours ({error.orig}); move it away to start with a new one:"
                " volumes are found on their ALUs again when those are attached"
            ) from error

    def _check_version(self) -> None:
        found = self.value("schema")
        if found is None or found in UPGRADED:
            self.set_value("schema", SCHEMA_VERSION)
        elif found != SCHEMA_VERSION:
            self._engine.dispose()
            raise UsageError(f"{self._shown_url} has schema version {found}, this program knows {SCHEMA_VERSION} only")

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def load(self) -> Settings:
        """Read all settings."""
        with self._engine.connect() as connection:
            rows = {t.name: [dict(r._mapping) for r in connection.execute(sa.select(t))] for t in SETTING_TABLES}
        legacy = {row["alu"] for row in rows["legacy_alu"]}
        members = sorted(rows["pool_member"], key=lambda row: row["position"])
        return Settings(
            alus=tuple(sorted(AluSetting(**row, legacy=row["name"] in legacy) for row in rows["alu"])),
            pools=tuple(
                PoolSetting(name, tuple(row["alu"] for row in members if row["pool"] == name))
                for name in sorted(row["name"] for row in rows["pool"])
            ),
            hosts=tuple(sorted((HostDefinition(**row) for row in rows["host"]), key=lambda host: host.name)),
            exposures=tuple(
                sorted((Exposure(**row) for row in rows["exposure"]), key=lambda e: (e.host, e.lun)),
            ),
        )

    def save(self, settings: Settings) -> None:
        """Make the tables hold these settings and no others, in one transaction.

        Raises:
            StoreError: the database refused; what was there before still is.
        """
        wanted = _rows(settings)
        try:
            with self._engine.begin() as connection:
                for table in reversed(SETTING_TABLES):
                    connection.execute(sa.delete(table))
                for table in SETTING_TABLES:
                    if wanted[table.name]:
                        connection.execute(sa.insert(table), wanted[table.name])
        except DBAPIError as error:
            raise StoreError(f"the settings can't be saved in {self._shown_url}: {error.orig}") from error

    def load_unit(self, wwn: str) -> bytes | None:
        """Give the saved state of a volume's logical unit: its reservations and mode pages."""
        with self._engine.connect() as connection:
            return connection.scalar(sa.select(_units.c.state).where(_units.c.wwn == wwn))

    def save_unit(self, wwn: str, state: bytes) -> None:
        """Keep the state of a volume's logical unit; it is durable on return."""
        self._replace(_units, _units.c.wwn, wwn, {"wwn": wwn, "state": state})

    def drop_unit(self, wwn: str) -> None:
        """Forget the state of a volume's logical unit, if there is one."""
        self._replace(_units, _units.c.wwn, wwn, None)

    def value(self, key: str) -> str | None:
        """Give a value kept under a key, such as the SUSID."""
        with self._engine.connect() as connection:
            return connection.scalar(sa.select(_values.c.text).where(_values.c.key == key))

    def set_value(self, key: str, text: str) -> None:
        """Keep a value under a key; it is durable on return."""
        self._replace(_values, _values.c.key, key, {"key": key, "text": text})

    def _replace(self, table: sa.Table, column: sa.Column[str], key: str, row: Row | None) -> None:
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.delete(table).where(column == key))
                if row is not None:
                    connection.execute(sa.insert(table), [dict(row)])
        except DBAPIError as error:
            raise StoreError(f"{table.name} {key} can't be saved in {self._shown_url}: {error.orig}") from error


def shown_url(url: str) -> str:
    """Give a database URL without what could be a secret: user, password and options (S2).

    Raises:
        UsageError: it is no URL; there is no telling where a password may stand in it, so it is not shown.
    """
    try:
        parts = sa.make_url(url)
    except (SQLAlchemyError, ValueError):
        raise UsageError("the database URL can't be read; it looks like postgresql+psycopg://user@host/name") from None
    return sa.URL.create(parts.drivername, host=parts.host, port=parts.port, database=parts.database).render_as_string()


def check_folder(state: Path) -> None:
    """Refuse a state folder in which others could put files of theirs in the place of ours (S2).

    Raises:
        UsageError: it belongs to another user, or others may write in it.
    """
    found = state.stat()
    if found.st_uid not in (0, os.geteuid()):
        raise UsageError(f"state folder {state} belongs to user {found.st_uid}: use one of your own")
    if found.st_mode & 0o022:
        mode = stat.S_IMODE(found.st_mode)
        raise UsageError(f"state folder {state} has mode {mode:03o}, others can write in it: chmod go-w {state}")


def open_store(state: Path, url: str | None = None) -> Store:
    """Open the store of the appliance whose state folder this is; ``url`` names another database.

    Raises:
        UsageError: the folder is open to others, or the URL is wrong.
        OSError: the folder or the file can't be used.
        TiergateError: the database can't.
    """
    check_folder(state)
    if url is not None:
        return Store(url)
    path = state / FILE_NAME
    # Made here, not by SQLite, which would use the umask; its journals take the mode of the file.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(handle, 0o600)
    finally:
        os.close(handle)
    return Store(f"sqlite:///{path}")


def _rows(settings: Settings) -> dict[str, Sequence[Row]]:
    """Turn settings into the rows of each table."""
    return {
        "alu": [{"name": a.name, "path": a.path, "size_bytes": a.size_bytes} for a in settings.alus],
        "legacy_alu": [{"alu": a.name} for a in settings.alus if a.legacy],
        "pool": [{"name": pool.name} for pool in settings.pools],
        "pool_member": [
            {"pool": pool.name, "alu": alu, "position": position}
            for pool in settings.pools
            for position, alu in enumerate(pool.alus)
        ],
        "host": [{field: getattr(host, field) for field in host.__struct_fields__} for host in settings.hosts],
        "exposure": [{"host": e.host, "volume": e.volume, "lun": e.lun} for e in settings.exposures],
    }


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
