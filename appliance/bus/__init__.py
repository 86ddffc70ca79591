"""Carries messages between the processes of a system: a hub at the VCM, a link at each SP and at the MIC.

Over TCP by ZeroMQ, both ends proved and everything encrypted by CURVE (S4). A peer's name is the one that its key has
in the hub's list; what a peer says of itself counts for nothing. The hub listens on every internal fabric, and a link
is connected to all of these at once: it speaks over one, and over another when that one has fallen silent.

What the bus promises is little: messages are whole, bounded in size and number, from who they seem to be from, and of
the same release. One may be lost when a fabric or a process fails; who needs to be sure asks again
(``appliance.control``). Each end sends a beat four times a second and hears that the other lives; silence is death. A
process's *incarnation* grows with each start: the later one has the name, and what an earlier one says is dropped.
"""
