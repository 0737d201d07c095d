"""Everything that reads what others wrote, by name."""

from collections.abc import Mapping

from tests.fuzz import (
    command_targets,
    data_targets,
    result_targets,
    setting_targets,
    weight_targets,
)
from tests.fuzz.harness import Target

TARGETS: Mapping[str, Target] = {
    target.name: target
    for room in (command_targets, setting_targets, result_targets, weight_targets, data_targets)
    for target in room.TARGETS
}
