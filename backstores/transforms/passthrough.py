"""The transform that changes nothing: a new one starts from it."""

from dataclasses import dataclass

from backstores.transforms.base import OneChild


@dataclass(frozen=True, slots=True)
class Passthrough(OneChild):
    """Hand every request to the child as it is."""
