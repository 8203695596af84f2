"""Publishing to the lake as a job: what changed, as often as the config says."""

from __future__ import annotations

from pathlib import Path

from ..cache import Cache
from ..config import Config
from ..errors import WandbsyncError
from .log import Log
from .service import Service

POOL = "lake"
PUBLISH = "publish to the lake"


class Publisher:
    """The job that publishes, called by the service."""

    def __init__(self, config: Config, folder: Path, service: Service, log: Log) -> None:
        self.config, self.folder, self.service, self.log = config, folder, service, log

    def publish(self) -> float | None:
        """Publish what changed; when to do it again (unix seconds), None if the config names no lake."""
        from ..lake.address import parse
        from ..lake.publish import publish

        if self.config.lake_url is None:
            return None
        with Cache(self.folder) as cache:
            report = publish(
                cache,
                parse(self.config.lake_url),
                machine=self.config.machine,
                now=self.service.clock,
                check=self.service.check,
            )
        if report.runs:
            self.log.note(
                "published",
                lake=report.address,
                runs=report.runs,
                values=report.values,
                commits=report.commits,
                conflicts=report.conflicts,
                seconds=round(report.seconds, 3),
            )
        for line in report.left:
            self.log.detail("left alone", reason=line)
        if report.problems:
            more = f" and {len(report.problems) - 1} more" if len(report.problems) > 1 else ""
            raise WandbsyncError(f"not published: {report.problems[0]}{more}", hint="the others are")
        return self.service.clock() + self.config.lake_every
