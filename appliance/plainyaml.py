"""YAML that a person writes for us: nothing in it but lists, mappings and plain values.

Aliases can make a short text long, libyaml's nesting uses up the C stack, and a tag picks a constructor whose errors
repeat the value (S2, S3). So these are refused before anything is built.
"""

from __future__ import annotations

from typing import Final

import yaml

from backstores.errors import UsageError

MOST_LEVELS: Final = 8  # of nesting; what we read has five at most
LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # msgspec's choice, too


def check_plain(text: str) -> None:
    """Refuse what a file for us never has.

    Raises:
        UsageError: the text has an alias, a tag, or is nested too deep; says in which line.
        yaml.YAMLError: it is no YAML.
    """
    level = line = 0
    for event in yaml.parse(text, Loader=LOADER):
        line = event.start_mark.line + 1 if event.start_mark else line
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(f"line {line} of the file has an alias (*): write it out")
        if getattr(event, "tag", None) is not None:
            raise UsageError(f"line {line} of the file has a tag (!): put quotes round a text that begins so")
        level += isinstance(event, yaml.CollectionStartEvent)
        level -= isinstance(event, yaml.CollectionEndEvent)
        if level > MOST_LEVELS:
            raise UsageError(f"line {line} of the file is nested deeper than {MOST_LEVELS} levels")
