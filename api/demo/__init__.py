"""The live order path: a market-data feed, an inference step, a decision engine, two sites with gateway and venue.

    feed ==lines A, B: UDP, MoldUDP64==> engine --TCP--> gateway --TCP--> venue    (east)
                                          ^  |   --TCP--> gateway --TCP--> venue    (west)
                                          |  v
                                       inference

Processes of their own; all but the inference step's datagrams pass through `links`, the network. They know nothing of
the product but the probe, and the product knows nothing of them but what `api/demo/tailsight.toml` declares, as for any
other program. `programs` says how to start them. Beside them `quotes` is a service that knows OpenTelemetry instead.

Logic is pure: events with their times in, actions out (`market`, `arbitration`, `model`, `desk`, `strategy`, `routing`,
`risk`, `book`, `link_model`, `faults`). Sockets, threads and stamps are in the programs (`feed`, `engine`, `entry`,
`inference`, `gateway`, `venue`, `links`) and in what they share (`place`, `streams`, `control`).
"""
