"""What a wheel carries of the zoo: its index, its plan and the networks below 3 MB; the others are fetched by hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LARGEST = 3_000_000  # bytes of a network in a wheel


class ZooHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the files to the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name each file and its place."""
        for path in sorted((Path(self.root) / "zoo").iterdir()):
            small = path.suffix == ".safetensors" and path.stat().st_size < LARGEST
            if small or path.suffix in {".json", ".yaml"}:
                build_data["force_include"][str(path)] = f"pibench/_data/zoo/{path.name}"
