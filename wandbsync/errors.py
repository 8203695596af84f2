"""The errors people meet, each with its exit code and what to try next.

    WandbsyncError          1  something failed
      UsageError            2  the command or the config asks for something that cannot be
        NotFound            2  no such project, run, metric or file in the cache; names near matches
        NotMirrored         2  the drop-in `Api` was asked for what only W&B itself has or does; names the call
      NotSignedIn           4  the server wants an API key, or another one
        NotPermitted        4  the key is good, but not for what was asked
      Unreachable           5  the source cannot be reached and nothing is cached
        TimedOut            5  it was reached, but an answer did not come in time
        NothingCached       5  the cache is empty, and no source was named
        RateLimited         5  the server wants to be left alone for longer than we wait
      ServerError           1  the server was reached, but its answer is an error or no answer; says what it told us
        ExpiredURL          1  a signed address holds no longer; a fresh one may
        TooLarge            1  an answer or a file has more bytes or rows than it can have
        BadExport           1  a file the server exported cannot be read
      CacheBusy             6  another process holds what this command needs
      CacheError            1  the cache cannot be read or written
        Damaged             1  a file of it is not as it was written: nothing is answered from it
        NewerCache          1  a newer wandbsync wrote it
        NoRoom              1  the disk is full; what is in the cache can still be read
      LogError              1  one `.wandb` log cannot be read; the other runs are not touched
        EmptyLog            1  nothing has been written to it yet
        NotALog             1  the file does not start as a `.wandb` log does
        NewerLog            1  a newer SDK wrote it
        TooManyKeys         1  it invents names without end
        ReplacedLog         1  the file is not the one that was read before
      Stopped             130  Ctrl-C or SIGTERM came while something was under way

Exit code 3 (partial: some runs failed, the others are done) belongs to a report, not to one error; 130 is Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

PARTIAL = 3
INTERRUPTED = 130


class WandbsyncError(Exception):
    """What happened, to which thing; `hint` says what to try next. The class knows the exit code."""

    exit_code = 1
    hint = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint

    def line(self) -> str:
        """The whole error on one line, as the command line prints it."""
        text = " ".join(str(self).split())
        return f"{text} ({self.hint})" if self.hint else text


class UsageError(WandbsyncError):
    exit_code = 2


class NotFound(UsageError):
    pass


class NotMirrored(UsageError, AttributeError):
    """An AttributeError too, so that `hasattr` says what is there."""


class NotSignedIn(WandbsyncError):
    exit_code = 4
    hint = "run `wandb login` or set WANDB_API_KEY"


class NotPermitted(NotSignedIn):
    hint = "check the name, and that the account of the API key may see it"


class Unreachable(WandbsyncError):
    exit_code = 5


class TimedOut(Unreachable):
    hint = "try again later"


class NothingCached(Unreachable):
    hint = "`wandbsync sync --local DIR` reads the runs below a folder"


class RateLimited(Unreachable):
    hint = "try again later"


class ServerError(WandbsyncError):
    """`status` is the HTTP status, if that is what was wrong. GraphQL errors come as `messages`, with what the server
    could answer all the same in `data`."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status: int | None = None,
        messages: Sequence[str] = (),
        data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.messages, self.data = status, tuple(messages), data


class ExpiredURL(ServerError):
    hint = "a fresh address has to be asked for"


class TooLarge(ServerError):
    hint = "the run is left alone for a while, and tried again later"


class BadExport(ServerError):
    hint = "it is fetched again next time"


class CacheBusy(WandbsyncError):
    exit_code = 6
    hint = "try again in a moment"


class CacheError(WandbsyncError):
    pass


class Damaged(CacheError):
    hint = "`wandbsync cache repair` reads again what its sources still have"


class NewerCache(CacheError):
    hint = "upgrade wandbsync, or use another --cache-dir"


class NoRoom(CacheError):
    hint = "free some disk space, or try `wandbsync cache gc`; nothing is lost"


class LogError(WandbsyncError):
    pass


class EmptyLog(LogError):
    hint = "the next sync looks again"


class NotALog(LogError):
    hint = "it is left alone; the next sync looks again if it changes"


class NewerLog(LogError):
    hint = "upgrade wandbsync; the file is kept for later"


class TooManyKeys(LogError):
    hint = "what was logged before is kept; a value belongs under one name, not under a new one each time"


class ReplacedLog(LogError):
    hint = "it will be read again from the start"


class Stopped(WandbsyncError):
    exit_code = INTERRUPTED
    hint = "what was committed stays; the next sync goes on from there"

    def __init__(self, message: str = "stopped", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)


def nearest_each(wanted: Sequence[str], names: Sequence[str]) -> str:
    """A hint for several names that are missing: of each what it is most like."""
    if len(wanted) == 1 or not names:
        return nearest(wanted[0], names)
    return "; ".join(f"{one}: {nearest(one, names)}" for one in wanted[:5])


def nearest(wanted: str, names: Iterable[str]) -> str:
    """A hint: the names most like the one wanted, or some that there are."""
    import difflib

    names = list(names)
    near = difflib.get_close_matches(wanted, names, n=5, cutoff=0.4)
    near += [name for name in names if wanted.lower() in name.lower() and name not in near][: 5 - len(near)]
    if near:
        return "did you mean " + " or ".join(near) + "?"
    if not names:
        return "nothing is cached yet: try `wandbsync sync --local DIR`"
    return "there is " + ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
