"""The Python that runs a site's jobs, as those see it who look for packages."""

from __future__ import annotations

from typing import Any, NamedTuple


class Target(NamedTuple):
    """Pyodide: a Python version and the ABI that wheels for it are built against (PEP 783)."""

    python: str
    abi: str
    system: str

    @classmethod
    def of(cls, lock: dict[str, Any]) -> Target:
        """What Pyodide's lock says about itself."""
        info = lock["info"]
        return cls(str(info["python"]), str(info["abi_version"]), str(info["platform"]))

    @property
    def minor(self) -> str:
        return ".".join(self.python.split(".")[:2])

    @property
    def platform(self) -> str:
        """The platform tag of a wheel."""
        return f"pyemscripten_{self.abi}_wasm32"

    def markers(self) -> dict[str, str]:
        """What an environment marker of a requirement is compared with."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": "wasm32",
            "platform_python_implementation": "CPython",
            "platform_release": self.system.partition("_")[2].replace("_", "."),
            "platform_system": "Emscripten",
            "platform_version": "",
            "python_full_version": self.python,
            "python_version": self.minor,
            "sys_platform": "emscripten",
        }

    def __str__(self) -> str:
        return f"Python {self.minor}, {self.platform}"
