"""Hosts: who may log in, under which names, with which secrets (R14, R33)."""

from __future__ import annotations

import asyncio

import msgspec

from appliance.messages import HostDefinition
from appliance.mic.state import ManagementState, refuse_duplicate, with_item, without
from appliance.mic.views import HostView, Outcome
from backstores.errors import UsageError
from backstores.secretfile import read_secret
from backstores.wwn import short

OPEN_PATTERN = "*"


class Hosts:
    """The commands of /hosts."""

    def __init__(self, state: ManagementState) -> None:
        self._state = state

    async def create(
        self,
        name: str,
        iqn: str,
        chap_user: str | None,
        chap_secret_file: str | None,
        mutual_user: str | None,
        mutual_secret_file: str | None,
    ) -> Outcome:
        """Let initiators of a name or pattern log in; they see nothing until a volume is exposed to the host."""
        refuse_duplicate("host", name, self._state.settings.hosts)
        host = HostDefinition(name=name, iqn=iqn)
        if chap_user or chap_secret_file or mutual_user or mutual_secret_file:
            host = await _with_secrets(host, chap_user, chap_secret_file, mutual_user, mutual_secret_file)
        await self.put(host)
        notes = [] if iqn != OPEN_PATTERN else [f"host {name} is open: any initiator may log in as it"]
        return Outcome(f"host {name} may log in as {iqn}, {chap_text(host)}", notes=tuple(notes))

    async def set_chap(
        self,
        name: str,
        chap_user: str,
        chap_secret_file: str,
        mutual_user: str | None,
        mutual_secret_file: str | None,
    ) -> Outcome:
        """Ask a host for CHAP from its next login on."""
        host = await _with_secrets(self._state.host(name), chap_user, chap_secret_file, mutual_user, mutual_secret_file)
        await self.put(host)
        return Outcome(f"host {name} logs in with {chap_text(host)} from now on")

    async def clear_chap(self, name: str) -> Outcome:
        """Let a host log in without CHAP."""
        host = self._state.host(name)
        if not host.chap_user:
            return Outcome(f"host {name} logs in without CHAP already", changed=False)
        await self.put(HostDefinition(name=name, iqn=host.iqn))
        return Outcome(f"host {name} logs in without CHAP from now on")

    async def delete(self, name: str, force: bool) -> Outcome:
        """Forget a host; one that sees volumes only by ``force``."""
        self._state.host(name)
        volumes = self.volumes_of(name)
        if volumes and not force:
            raise UsageError(f"host {name} sees volume {', '.join(volumes)}; unexpose it first, or say force=yes")
        await self._state.save(
            hosts=without(self._state.settings.hosts, name),
            exposures=tuple(e for e in self._state.settings.exposures if e.host != name),
        )
        return Outcome(f"host {name} is deleted")

    async def info(self, name: str) -> HostView:
        """Tell all about one host, but its secrets."""
        return self.view(self._state.host(name))

    async def rows(self) -> tuple[HostView, ...]:
        """List the hosts."""
        return tuple(self.view(host) for host in self._state.settings.hosts)

    def view(self, host: HostDefinition) -> HostView:
        """Put together what is known of a host."""
        return HostView(
            name=host.name,
            iqn=f"{host.iqn} (open)" if host.iqn == OPEN_PATTERN else host.iqn,
            chap=chap_text(host),
            volumes=self.volumes_of(host.name),
            sessions=len(self._state.sp.sessions(host.name)),
        )

    def volumes_of(self, host: str) -> tuple[str, ...]:
        """Name the volumes that a host sees; one whose ALUs are missing goes by its short WWN."""
        names = {volume.wwn: volume.name for volume in self._state.sp.volumes()}
        exposures = (e for e in self._state.settings.exposures if e.host == host)
        return tuple(names.get(e.volume, f"missing {short(e.volume)}") for e in exposures)

    async def put(self, host: HostDefinition) -> None:
        """Save a host, unless another one has its initiator name."""
        for other in self._state.settings.hosts:
            if other.iqn == host.iqn and other.name != host.name:
                raise UsageError(f"iqn {host.iqn} is host {other.name}'s already")
        await self._state.save(hosts=with_item(self._state.settings.hosts, host))


def chap_text(host: HostDefinition) -> str:
    """Say how a host proves itself, without a secret."""
    if not host.chap_user:
        return "no CHAP"
    return f"mutual CHAP as {host.chap_user}" if host.mutual_user else f"CHAP as {host.chap_user}"


def check_chap(host: HostDefinition) -> HostDefinition:
    """Refuse CHAP settings that don't hold together.

    Raises:
        UsageError: a half without its other half, or one secret for both directions.
    """
    for what, user, secret in (
        ("chap", host.chap_user, host.chap_secret),
        ("mutual", host.mutual_user, host.mutual_secret),
    ):
        if bool(user) != bool(secret):
            raise UsageError(f"host {host.name}: {what}-user and {what}-secret-file go together, one is missing")
    if host.mutual_user and not host.chap_user:
        raise UsageError(f"host {host.name}: mutual CHAP takes chap-user and chap-secret-file, too")
    if host.mutual_secret and host.mutual_secret == host.chap_secret:
        raise UsageError(
            f"host {host.name}: the secrets of the two directions are equal; choose another (RFC 7143, 9.2.1)"
        )
    return host


async def _with_secrets(
    host: HostDefinition, user: str | None, secret_file: str | None, mutual_user: str | None, mutual_file: str | None
) -> HostDefinition:
    secret = await asyncio.to_thread(read_secret, secret_file) if secret_file else ""
    mutual = await asyncio.to_thread(read_secret, mutual_file) if mutual_file else ""
    return check_chap(
        msgspec.structs.replace(
            host,
            chap_user=user or "",
            chap_secret=secret,
            mutual_user=mutual_user or "",
            mutual_secret=mutual,
        )
    )
