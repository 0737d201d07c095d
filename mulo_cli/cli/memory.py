"""How much memory there is for networks, asked before anything is computed."""


def free_memory() -> int | None:
    """Return the bytes that networks can have on the device, None where nobody tells."""
    import jax

    from mulo_cli.datasets.files.memory import available_memory

    told = jax.devices()[0].memory_stats()
    if told and "bytes_limit" in told:
        return told["bytes_limit"] - told["bytes_in_use"]
    return available_memory()
