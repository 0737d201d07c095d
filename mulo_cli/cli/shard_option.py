"""The option that spreads each network over all devices, and the memory that they have together."""

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from mulo_cli.errors import UsageError

if TYPE_CHECKING:
    from jax.sharding import Mesh

Shard: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--shard", help="Spread each network over all devices of this process, for large ones."
    ),
]


def mesh_for(*, shard: bool) -> "Mesh | None":
    """Return what networks are spread over; None: each is on one device.

    Raises:
        UsageError: there is one device alone.
    """
    if not shard:
        return None
    import jax

    from mulo_cli.inner_training.sharding import mesh_of

    devices = jax.local_devices()
    if len(devices) == 1:
        raise UsageError(
            f"--shard spreads networks over devices, and there is one alone ({devices[0]})",
            "leave it away; to try it on a CPU: "
            "XLA_FLAGS=--xla_force_host_platform_device_count=4 mulo ...",
        )
    return mesh_of(devices)


def memory_of_all(free: int | None, mesh: "Mesh | None") -> int | None:
    """Return the bytes that are free for one network.

    Args:
        free: of one device; None where nobody tells.
        mesh: what the network is spread over. Devices of a CPU share its memory.
    """
    if free is None or mesh is None or mesh.devices.flat[0].platform == "cpu":
        return free
    return free * mesh.size
