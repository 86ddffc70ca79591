"""What one volume takes does not depend on how large the system is (R10, R12)."""

from __future__ import annotations

from appliance.simulation.scale import initialize


def test_a_volume_takes_as_many_orders_in_a_large_system_as_in_a_small_one() -> None:
    """Scale: the messages for one more volume depend on its size."""
    small, large = initialize(4, 8, 10), initialize(40, 80, 200)
    assert small.orders_a_volume == large.orders_a_volume
    assert large.messages / large.volumes < 2 * small.messages / small.volumes
