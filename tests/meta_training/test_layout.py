"""How blocks of pairs are dealt out to devices."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulo_cli.meta_training.layout import Item, plan


class FakeDevice(NamedTuple):
    """As much of a device as a layout looks at."""

    id: int
    process_index: int


def devices(count: int, per_process: int = 1) -> list[FakeDevice]:
    return [FakeDevice(i, i // per_process) for i in range(count)]


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(1, 16), st.integers(1, 1_000)), min_size=1, max_size=4),
)
def test_every_block_has_one_device_and_no_device_has_far_more_than_its_share(count, tasks):
    blocks, costs = zip(*tasks, strict=True)
    layout = plan(devices(count), 0, blocks, costs)
    assert set(layout.owners) == {Item(t, b) for t in range(len(tasks)) for b in range(blocks[t])}
    load = dict.fromkeys(devices(count), 0)
    for item, device in layout.owners.items():
        load[device] += costs[item.task]
    fair = sum(b * c for b, c in tasks) / count
    assert max(load.values()) <= fair + max(costs)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_equal_blocks_are_dealt_out_evenly(count):
    layout = plan(devices(count), 0, [8], [5])
    shares = [list(layout.owners.values()).count(d) for d in devices(count)]
    assert shares == [8 // count] * count


def test_widths_are_trained_at_the_same_time_where_there_are_more_devices_than_pairs():
    layout = plan(devices(3), 0, [1, 1, 1], [3, 4, 5])
    assert len(set(layout.owners.values())) == 3


def test_devices_without_work_are_counted():
    assert plan(devices(5), 0, [1, 2], [1, 1]).idle(devices(5)) == 2


def test_a_process_does_what_its_devices_own_and_leads_on_the_first_of_them():
    layout = plan(devices(4, per_process=2), 1, [4], [1])
    assert [device.id for device in layout.here.values()] == [2, 3]
    assert layout.lead.id == 2
