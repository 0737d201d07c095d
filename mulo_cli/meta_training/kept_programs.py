"""Traced programs kept on disk: a second start of a run need not trace them again.

What is kept is StableHLO, which says what to compute and holds no code of ours. Tracing is Python
and takes most of a second start; compiled programs, which are kept elsewhere, do not save it.
"""

import hashlib
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jax import export
from jax.export import Exported

from mulo_cli.types import Stored

CHECKSUM_BYTES = 32


@dataclass(frozen=True)
class KeptPrograms:
    """A folder of traced programs; nothing is lost but time if it cannot be read or written.

    Attributes:
        folder: may not be there yet.
        identity: digest of all that programs depend on, besides their names and their arguments'
            shapes. Whatever it forgets would give wrong numbers in silence.
    """

    folder: Path
    identity: str

    def find(self, name: str, arguments: Sequence[Stored]) -> Exported | None:
        """Return a program that was kept for such arguments; None where there is none, unharmed.

        Args:
            name: tells apart the programs of one identity.
            arguments: flat.
        """
        with suppress(OSError):
            stored = self._path(name, arguments).read_bytes()
            checksum, program = stored[:CHECKSUM_BYTES], stored[CHECKSUM_BYTES:]
            if hashlib.sha256(program).digest() == checksum:
                return export.deserialize(bytearray(program))
        return None

    def keep(self, name: str, arguments: Sequence[Stored], program: Exported) -> None:
        """Write a program, whole or not at all."""
        serialised = program.serialize()
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            draft = self.folder / f"{uuid.uuid4()}.draft"  # others may be keeping the same program
            try:
                draft.write_bytes(hashlib.sha256(serialised).digest() + serialised)
                os.replace(draft, self._path(name, arguments))
            finally:
                draft.unlink(missing_ok=True)

    def _path(self, name: str, arguments: Sequence[Stored]) -> Path:
        told = [self.identity, name]
        told += [f"{x.dtype}{x.shape}{getattr(x, 'weak_type', False)}" for x in arguments]
        return self.folder / f"{hashlib.sha256(chr(10).join(told).encode()).hexdigest()}.stablehlo"
