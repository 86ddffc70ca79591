"""The GS set as people see it: whether the configuration can be changed, and what to do if not (R4)."""

from __future__ import annotations

from appliance.mic.state import ManagementState
from appliance.mic.views import GsMemberView, GsView, Outcome
from backstores.errors import UsageError


class GsCommands:
    """The commands of /gs."""

    def __init__(self, state: ManagementState) -> None:
        self._state = state

    async def status(self) -> GsView:
        """Tell how the set is, and who is a member."""
        status = self._state.sp.global_set()
        names = self._state.alu_names()
        members = tuple(
            GsMemberView(alu=names.get(member.alu, member.path or member.alu), trouble=member.trouble)
            for member in status.members
        )
        return GsView(
            state=status.state,
            epoch=status.epoch,
            generation=status.generation,
            members=members,
            detail=status.detail,
        )

    async def reform(self, force: bool) -> Outcome:
        """Give up the members that are missing, and go on with the ALUs that are there."""
        missing = [member.alu for member in (await self.status()).members if member.trouble]
        if not force:
            lost = f"without {', '.join(missing)}" if missing else "though no member is missing"
            raise UsageError(
                f"the GS set would be formed anew {lost}; what only they know of legacy alus and of older copies would"
                " be lost: reform it with force=yes if they won't come back"
            )
        await self._state.sp.reform_global_set()
        members = ", ".join(member.alu for member in (await self.status()).members)
        return Outcome(f"the GS set is formed anew of {members}")
