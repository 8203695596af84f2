"""The units of what the SDK measures of a machine, by the names that it gives: percent, watts, degrees, bytes ..."""

from __future__ import annotations

import re

# As docs.wandb.ai has them under "System metrics"; what is not here has no unit, such as a number of threads.
_UNITS = (
    (r"(percent|\.gpu|\.cpu|system\.cpu|\.memory|memoryAllocated|utilization|fanSpeed|memoryUsage|dutyCycle)$", "%"),
    (r"(powerWatts|PowerLimitWatts|avg_power|power)$", "W"),
    (r"(temp|temperature)$", "°C"),
    (r"(bytes|network\.(sent|recv))$", "B"),
    (r"(MB|disk(\..+)?\.(in|out))$", "MB"),
    (r"GB$", "GB"),
    (r"(sm|memory|graphics)Clock$", "MHz"),
)
BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def unit_of(metric: str, largest: float) -> tuple[str, float]:
    """The unit of a metric of the machine, and what its values are divided by: many bytes are GB."""
    if not metric.startswith("system."):
        return "", 1.0
    for pattern, unit in _UNITS:
        if re.search(pattern, metric, re.IGNORECASE if unit in ("%", "B") else 0):
            if unit == "B":
                size, name = next(((size, name) for size, name in BYTES if largest >= size), (1.0, "B"))
                return name, size
            return unit, 1.0
    return "", 1.0
