"""`wandbsync.Api`: the reading half of `wandb.Api`, answered from the cache. Names, types and values are the SDK's.

    api       Api: projects, runs, a run            history   rows as dicts, sampled or scanned
    runs      Runs: those that fit a filter         summary   the summary, read like a dict
    run       Run: record, history, files           files     Files and File, downloaded and checked
    projects  Projects and Project                  console   ConsoleLogs
    sweeps    Sweeps and Sweep                      users     User and Owner
    pages     lists that are read as they are used  refusals  what only W&B itself has or does

Where answers differ on purpose, docs/api.md says so, and tests/test_contract.py shows it. The SDK is not imported.
"""

from .api import Api

__all__ = ["Api"]
