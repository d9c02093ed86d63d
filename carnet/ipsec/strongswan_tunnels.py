"""Which tunnels of ours strongSwan's daemon has, live or loaded, and where they lead."""

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from carnet.ipsec import strongswan_counters as counters
from carnet.ipsec import strongswan_reports as reports
from carnet.ipsec.driver import Lead, TunnelStatus
from carnet.ipsec.strongswan_listing import Listing
from carnet.ipsec.strongswan_parts import is_ours, tunnel_of
from carnet.ipsec.vici_link import open_session, text


class Tunnels:
    """What is in the daemon, tunnel by tunnel; every look is made anew."""

    def __init__(self, socket: Path, listed: Listing) -> None:
        self._socket = socket
        self._listed = listed

    def status(self) -> list[TunnelStatus]:
        """Report the live tunnels of ours."""
        tunnels: dict[str, dict[str, Any]] = {}
        for part, sa in reports.newest_parts(self._listed.settled_sas()).items():
            if is_ours(part):
                tunnels.setdefault(tunnel_of(part), {})[part] = sa
        # Connections are as many as tunnels, and to list them takes as long.
        peers = {} if all(map(reports.tells_its_role, tunnels.values())) else self._listed.peers()
        with open_session(self._socket) as session:
            rekeyed = counters.rekeyings(session)
        return [
            replace(
                reports.status(name, found, peers.get(name, ())),
                rekeys=None if rekeyed is None else rekeyed.get(name, 0),
            )
            for name, found in tunnels.items()
        ]

    def installed(self) -> frozenset[str]:
        """Return the names of all that is ours in the daemon, whole or in pieces."""
        names = {name for name, _ in self._listed.sas()}
        with open_session(self._socket) as session:
            names |= set(text(session.get_conns())["conns"])
            names |= set(session.get_pools())
            names |= set(text(session.get_shared())["keys"])
        return frozenset(tunnel_of(name) for name in names if is_ours(name))

    def leads(self) -> dict[str, Lead]:
        """Return by name where the tunnels of ours lead, live or loaded.

        Of others that are live, their addresses inside.
        """
        connections, sas = self._listed.connections(), self._listed.sas()
        names = {tunnel_of(each) for each in (*connections, *dict(sas)) if is_ours(each)}
        foreign = {each: reports.lead({}, [sa]) for each, sa in sas if not is_ours(each)}
        return foreign | {
            name: reports.lead(
                {each: facts for each, facts in connections.items() if tunnel_of(each) == name},
                [sa for each, sa in sas if tunnel_of(each) == name],
            )
            for name in names
        }

    def leads_of_others(self, name: str) -> list[Lead]:
        """Return where all tunnels lead but this one."""
        return [lead for each, lead in self.leads().items() if each != name]
