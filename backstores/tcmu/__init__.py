"""Volumes through the kernel's target (R31): the ring that LIO shares with us, and what serves it.

formats                   what lies in the ring, declared once
ring                      the ring without I/O: commands out, completions in
hotpath                   READ and WRITE straight between the ring's data area and a device
uio                       the character device through which the kernel shares the ring
handler                   serves one ring with a logical unit, in the loop
announcements, netlink    what the kernel says of its devices: read, and heard
"""
