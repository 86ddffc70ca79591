"""python -m appliance.simulation --seeds 1000 --sps 20: run histories; print the first that fails, shrunk."""

from __future__ import annotations

import argparse
import sys

from appliance.simulation.history import Run, make_history, shrink, told


def main() -> int:
    """Run the histories of some seeds; returns the exit status."""
    parser = argparse.ArgumentParser(prog="appliance.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many histories")
    parser.add_argument("--first", type=int, default=1, help="the seed of the first one")
    parser.add_argument("--sps", type=int, default=20, help="the most storage processors")
    parser.add_argument("--events", type=int, default=25, help="how much happens in each")
    parser.add_argument("--whole", action="store_true", help="print the first one that fails as it is")
    options = parser.parse_args()
    messages = 0
    for seed in range(options.first, options.first + options.seeds):
        history = make_history(seed, options.sps, options.events)
        verdict = Run(history).go()
        messages += verdict.messages
        if verdict.broken:
            small = history if options.whole else shrink(history)
            print(*told(Run(small).go()), sep="\n")
            print(f"seed {seed}: {verdict.broken}\n{small}")
            return 1
    print(f"{options.seeds} histories of up to {options.sps} storage processors, {messages} messages: all held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
