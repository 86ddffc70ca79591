"""The Virtualization Coherency Manager (VCM): which storage processor does what, and that they agree (R12).

It has neither disk nor database. What it knows it was told: by the storage processors, which say what they run, by the
MVSP, which has the system image from the ALUs, and by the MIC, which has the settings. So it may be killed at any
moment; its successor asks, and goes on. Data goes on meanwhile (C1).

``core.CoherencyManager.step`` takes an input and gives effects. Below it each part minds one thing:

    peers        which storage processors there are, and how they are
    courier      orders that are repeated until they are answered
    alus         which storage processor has which ALU open
    election     who is to be the MVSP (a pure function)
    mastership   which storage processor is the MVSP, in which epoch, and what it is asked
    location     which hosts see which volumes, through whom
    placement    a volume's tree and what there is of storage processors -> who runs what (a pure function)
    stages       what runs and what should -> the next orders (a pure function): initialization, changes, removal
    volumes      carries these out for all volumes, each by itself (C3)
    requests     what people ask for, until it is answered
    picture      what the MIC knows of all this

Nothing remembers where in a procedure a volume is. After each stage the next one is found by comparing what runs with
what should run; so a failure in the middle, a storage processor that comes or goes, and a restart of the VCM need no
procedure of their own.
"""
