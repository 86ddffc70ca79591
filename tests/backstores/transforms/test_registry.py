"""The registry knows every transform, and every transform has its test."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import get_args

from backstores import transforms
from backstores.objects import AnyObject, VolumeObject
from backstores.transforms.base import OneChild
from backstores.transforms.flat import FLAT
from backstores.transforms.registry import MAKERS, TRANSFORMS

MODULES = [import_module(f"{transforms.__name__}.{found.name}") for found in pkgutil.iter_modules(transforms.__path__)]


def test_every_transform_has_one_row() -> None:
    found = {
        member
        for module in MODULES
        for member in vars(module).values()
        if inspect.isclass(member) and member.__module__ == module.__name__ and hasattr(member, "stages")
    }
    rows = [row.transform for row in TRANSFORMS.values()]
    assert found - {OneChild} == set(rows)
    assert len(rows) == len(set(rows))


def test_every_transform_has_a_test_module() -> None:
    for row in TRANSFORMS.values():
        name = row.transform.__module__.rpartition(".")[2]
        assert (Path(__file__).parent / f"test_{name}.py").is_file()


def test_every_stored_object_below_a_volume_has_a_maker() -> None:
    """Prove R7: whatever can be stored can be brought on line."""
    assert set(MAKERS) == set(get_args(AnyObject)) - {VolumeObject}


def test_what_is_stored_lies_on_a_tier() -> None:
    assert all(row.tier in (1, 2) for row in TRANSFORMS.values() if row.stored)


def test_a_rule_of_flatten_exists_for_the_static_transforms_alone() -> None:
    assert {row.transform for row in TRANSFORMS.values() if row.static} == FLAT
