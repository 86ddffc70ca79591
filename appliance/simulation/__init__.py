"""The whole control plane under virtual time, with faults: the cores that the appliance runs, over ALUs in memory.

A *history* is made from a seed: what people ask for, what dies, sleeps, is cut off, and when. The network loses,
delays and reorders as the seed says. After each event the invariants are checked, and at the end, when all has been
quiet for a while, that everything is as it should be. The same seed gives the same history, event by event; one that
fails is shrunk to the events that matter, and printed as a transcript.

    python -m appliance.simulation --seeds 1000 --sps 20
"""
