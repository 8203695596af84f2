"""The long-running service beside training jobs: the same sync() on a timer, and live runs followed.

    process     one instance: its lock, signals, config
    daemon      all jobs of one cache with one config
    service     jobs by name: each is done, then says when it is to be done next
    timer       when that time has come (APScheduler)
    folders     jobs for the runs on this machine: walk the folders, follow what is being written
    projects    jobs for a W&B server: look at each project in turn, probe a server that is away
    upkeep      jobs for the cache: merge, publish, sweep
    log         what it did, in lines of JSON, rotated
    metrics     how it is, for Prometheus
    control     stop, reload: what others ask of it

Nothing in here knows how to sync.
"""
