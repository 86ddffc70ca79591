"""A volume at work: requests in at its door, leaf operations out, and what happens when a leg fails."""
