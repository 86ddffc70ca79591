"""Pools: ALUs that volumes are placed on together (R8)."""

from __future__ import annotations

from appliance.mic.settings import PoolSetting
from appliance.mic.state import ManagementState, refuse_duplicate, with_item, without
from appliance.mic.values import human_size
from appliance.mic.views import Outcome, PoolView
from backstores.errors import UsageError


class Pools:
    """The commands of /pools."""

    def __init__(self, state: ManagementState) -> None:
        self._state = state

    async def create(self, name: str, alus: tuple[str, ...]) -> Outcome:
        """Make a pool of attached ALUs."""
        refuse_duplicate("pool", name, self._state.settings.pools)
        self._check_members(alus)
        await self._put(PoolSetting(name, alus))
        return Outcome(f"pool {name} is made of {', '.join(alus)}")

    async def delete(self, name: str) -> Outcome:
        """Forget a pool; its ALUs and the volumes on them stay."""
        self._state.pool(name)
        await self._state.save(pools=without(self._state.settings.pools, name))
        return Outcome(f"pool {name} is deleted; its alus and volumes are kept")

    async def add(self, name: str, alus: tuple[str, ...]) -> Outcome:
        """Put more ALUs into a pool."""
        pool = self._state.pool(name)
        self._check_members(alus)
        new = tuple(alu for alu in alus if alu not in pool.alus)
        if not new:
            return Outcome(f"pool {name} has {', '.join(alus)} already", changed=False)
        await self._put(PoolSetting(name, pool.alus + new))
        return Outcome(f"pool {name} has {', '.join(new)} now")

    async def remove(self, name: str, alus: tuple[str, ...]) -> Outcome:
        """Take ALUs out of a pool; volumes on them stay where they are."""
        pool = self._state.pool(name)
        strangers = [alu for alu in alus if alu not in pool.alus]
        if strangers:
            raise UsageError(f"alu {strangers[0]} is not in pool {name}, which has {', '.join(pool.alus)}")
        rest = tuple(alu for alu in pool.alus if alu not in alus)
        if not rest:
            raise UsageError(f"{', '.join(alus)} is all that pool {name} has; `/pools/{name} delete` deletes it")
        await self._put(PoolSetting(name, rest))
        return Outcome(f"pool {name} has {', '.join(rest)} left")

    async def info(self, name: str) -> PoolView:
        """Tell all about one pool."""
        return self.view(self._state.pool(name))

    async def rows(self) -> tuple[PoolView, ...]:
        """List the pools."""
        return tuple(self.view(pool) for pool in self._state.settings.pools)

    def view(self, pool: PoolSetting) -> PoolView:
        """Sum the members up; a missing one counts nothing."""
        found = [self._state.alu_status(self._state.alu(name)) for name in pool.alus]
        size_bytes = sum(status.size_bytes for status in found if status)
        free_bytes = sum(status.free_bytes for status in found if status)
        return PoolView(
            name=pool.name,
            alus=pool.alus,
            size=human_size(size_bytes),
            free=human_size(free_bytes),
            size_bytes=size_bytes,
            free_bytes=free_bytes,
        )

    async def _put(self, pool: PoolSetting) -> None:
        await self._state.save(pools=with_item(self._state.settings.pools, pool))

    def _check_members(self, alus: tuple[str, ...]) -> None:
        for name in alus:
            if self._state.alu(name).legacy:
                raise UsageError(f"alu {name} is a legacy alu: a volume takes all of it or nothing, by its name")
