"""A storage processor of a system of many: the hands that carry out what the control plane orders.

    order of the VCM → VSM (a core) → ``process.Processor`` → ``dataplane``, or ``master`` if this SP is the MVSP

Each hand does one thing when it is told to, and says what came of it; when and in which order is the cores' matter.
"""
