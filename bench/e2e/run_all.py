"""Runs every end-to-end measurement, one after the other. BENCH_SCALE=0.1 makes them shorter."""

import batch
import interference
import latency
import memory
import sources
import throughput

for part in (latency, throughput, sources, interference, memory, batch):
    print(f"\n## {part.__name__}\n\n{(part.__doc__ or '').splitlines()[0]}\n", flush=True)
    part.main()
