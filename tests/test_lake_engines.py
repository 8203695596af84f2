"""Other engines read what was published, and skip what they can: Polars and DataFusion always, Daft and Ray if there.

`make engines` installs Daft and Ray, which are large, and runs this. Each reads in a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rows import number

from wandbsync.cache import Cache
from wandbsync.model import RunRef

pytest.importorskip("deltalake")

from test_lake import bring, put

READ = {
    "polars": """
import polars as pl
where = (pl.col("project") == "p1") & (pl.col("run_id") == "r2") & (pl.col("key") == "loss")
rows = pl.scan_delta(table).filter(where).select("step", "value").collect().rows()
""",
    "deltalake": """
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder  # DataFusion, with its own SQL
found = QueryBuilder().register("history", DeltaTable(table)).execute(
    "SELECT step, value FROM history WHERE project = 'p1' AND run_id = 'r2' AND key = 'loss'")
found = pa.table(found)
rows = list(zip(found["step"].to_pylist(), found["value"].to_pylist()))
""",
    "daft": """
import daft
where = (daft.col("project") == "p1") & (daft.col("run_id") == "r2") & (daft.col("key") == "loss")
found = daft.read_deltalake(table).where(where).select("step", "value").to_pydict()
rows = list(zip(found["step"], found["value"]))
""",
    "ray": """
import os, ray
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
how = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 100 << 20}
ray.init(num_cpus=2, _node_ip_address="127.0.0.1", **how)
found = ray.data.read_delta(table).filter(expr="project == 'p1' and run_id == 'r2' and key == 'loss'")
rows = [(row["step"], row["value"]) for row in found.take_all()]
workers = ray.data.range(4, override_num_blocks=2).map_batches(lambda batch: {"pid": [os.getpid()]}).unique("pid")
assert os.getpid() not in workers
ray.shutdown()
""",
}


@pytest.mark.parametrize("engine", list(READ))
def test_an_engine_reads_one_metric_of_one_run(engine: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    lake, wanted = tmp_path / "lake", [[step, step / 3] for step in range(50)]
    with Cache(tmp_path / "cache") as cache:
        for p in range(3):
            for r in range(4):
                rows: list[Any] = [number(key, step, step / 3) for step in range(50) for key in ("loss", "acc")]
                put(cache, RunRef("me", f"p{p}", f"r{r}"), rows)
        bring(cache, str(lake))
    code = f"table = {str(lake / 'history')!r}\n{READ[engine]}\nimport json; print('ROWS', json.dumps(sorted(rows)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.rsplit("ROWS ", 1)[1]) == wanted
