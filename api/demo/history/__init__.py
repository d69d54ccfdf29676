"""The order path on a virtual clock: the same pure logic as the processes, driven by a list of events instead of time.

    market, or a fixture's datagrams -> events (order path) -> tape (stamps, links)
        -> frames -> spool -> batches -> landing -> windows

What the processes do with sockets and threads is `simulation` here; everything else (`arbitration`, `desk`,
`strategy`, `model`, `routing`, `book`, `link_model`, `faults`, `profile`, `market`) is theirs. How long steps and links
take is drawn from a latency profile that was measured on the live demo (`live.csv`). Every stamp says `synthetic`.
"""
