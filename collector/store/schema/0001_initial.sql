-- Tailsight schema, version 1. One table per noun (docs/glossary.md). Statements end with a semicolon at the end of
-- a line. {retention.NAME} are hours from [retention] of tailsight.toml, {durable} are the settings that make an
-- acknowledged insert survive a crash (collector/store/schema.py). Codecs and order were chosen by measurement:
-- docs/benchmarks.md, "Bytes per stamp".

-- One timestamp of one message at one point. Partitioned by the day the batch was cut, so that a wrong clock cannot
-- open partitions; ordered so that the stamps of one message lie together. Kept from when a row was written: an outage
-- or a history brings old events, which have to live until their windows are computed.
CREATE TABLE IF NOT EXISTS stamps (
    ts           DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    key          UInt64                 CODEC(ZSTD(1)),
    point        LowCardinality(String) CODEC(ZSTD(1)),
    host         LowCardinality(String) CODEC(ZSTD(1)),
    service      LowCardinality(String) CODEC(ZSTD(1)),
    thread       UInt32                 CODEC(T64, ZSTD(1)),
    clock        LowCardinality(String) CODEC(ZSTD(1)),
    error_ns     Nullable(UInt32)       CODEC(ZSTD(1)),
    depth        Nullable(Int32)        CODEC(ZSTD(1)),
    label_set    UInt64                 CODEC(ZSTD(1)),
    outcome      Enum8('unset' = 0, 'ok' = 1, 'error' = 2, 'rejected' = 3, 'shed' = 4, 'timeout' = 5) CODEC(ZSTD(1)),
    mode         Enum8('unset' = 0, 'normal' = 1, 'cached' = 2, 'fallback' = 3, 'shadow' = 4, 'synthetic' = 5) CODEC(ZSTD(1)),
    cache        Enum8('unset' = 0, 'hit' = 1, 'stale' = 2, 'miss' = 3) CODEC(ZSTD(1)),
    data_age_ns  Nullable(Int64)        CODEC(ZSTD(1)),
    batch        UInt64                 CODEC(ZSTD(1)),
    seq          UInt64                 CODEC(Delta, ZSTD(1)),
    cut_day      Date                   CODEC(ZSTD(1)),
    written      DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
) ENGINE = MergeTree
PARTITION BY cut_day
ORDER BY (toStartOfMinute(ts), key, ts)
TTL greatest(toDateTime(ts), written) + INTERVAL {retention.stamps} HOUR
SETTINGS {durable};

-- Stamps of chosen messages (slow, in an episode, or a weighted share of the rest), kept longer than the stream.
CREATE TABLE IF NOT EXISTS stamps_kept (
    ts           DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    key          UInt64                 CODEC(ZSTD(1)),
    point        LowCardinality(String) CODEC(ZSTD(1)),
    host         LowCardinality(String) CODEC(ZSTD(1)),
    service      LowCardinality(String) CODEC(ZSTD(1)),
    thread       UInt32                 CODEC(T64, ZSTD(1)),
    clock        LowCardinality(String) CODEC(ZSTD(1)),
    error_ns     Nullable(UInt32)       CODEC(ZSTD(1)),
    depth        Nullable(Int32)        CODEC(ZSTD(1)),
    label_set    UInt64                 CODEC(ZSTD(1)),
    outcome      Enum8('unset' = 0, 'ok' = 1, 'error' = 2, 'rejected' = 3, 'shed' = 4, 'timeout' = 5) CODEC(ZSTD(1)),
    mode         Enum8('unset' = 0, 'normal' = 1, 'cached' = 2, 'fallback' = 3, 'shadow' = 4, 'synthetic' = 5) CODEC(ZSTD(1)),
    cache        Enum8('unset' = 0, 'hit' = 1, 'stale' = 2, 'miss' = 3) CODEC(ZSTD(1)),
    data_age_ns  Nullable(Int64)        CODEC(ZSTD(1)),
    batch        UInt64                 CODEC(ZSTD(1)),
    seq          UInt64                 CODEC(Delta, ZSTD(1)),
    cut_day      Date                   CODEC(ZSTD(1))
) ENGINE = MergeTree
PARTITION BY cut_day
ORDER BY (toStartOfMinute(ts), key, ts)
TTL toDateTime(ts) + INTERVAL {retention.stamps_kept} HOUR
SETTINGS {durable};

-- Identity changes on the way: the parent message caused the child.
CREATE TABLE IF NOT EXISTS links (
    ts       DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    parent   UInt64                 CODEC(ZSTD(1)),
    child    UInt64                 CODEC(ZSTD(1)),
    host     LowCardinality(String) CODEC(ZSTD(1)),
    service  LowCardinality(String) CODEC(ZSTD(1)),
    batch    UInt64                 CODEC(ZSTD(1)),
    seq      UInt64                 CODEC(Delta, ZSTD(1)),
    cut_day  Date                   CODEC(ZSTD(1)),
    written  DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
) ENGINE = MergeTree
PARTITION BY cut_day
ORDER BY (toStartOfMinute(ts), child, parent, ts)
TTL greatest(toDateTime(ts), written) + INTERVAL {retention.stamps} HOUR
SETTINGS {durable};

-- A sampled level: queue depth, backlog, run-queue delay of a thread, steal.
CREATE TABLE IF NOT EXISTS gauges (
    ts         DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    name       LowCardinality(String) CODEC(ZSTD(1)),
    host       LowCardinality(String) CODEC(ZSTD(1)),
    service    LowCardinality(String) CODEC(ZSTD(1)),
    label_set  UInt64                 CODEC(ZSTD(1)),
    value      Float64                CODEC(ZSTD(1)),
    batch      UInt64                 CODEC(ZSTD(1)),
    seq        UInt64                 CODEC(Delta, ZSTD(1)),
    cut_day    Date                   CODEC(ZSTD(1))
) ENGINE = MergeTree
PARTITION BY cut_day
ORDER BY (name, host, label_set, ts)
TTL toDateTime(ts) + INTERVAL {retention.gauges} HOUR
SETTINGS {durable};

-- A span on a thread or device without a key of its own, with who caused it.
CREATE TABLE IF NOT EXISTS intervals (
    ts           DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    duration_ns  Int64                  CODEC(T64, ZSTD(1)),
    kind         LowCardinality(String) CODEC(ZSTD(1)),
    host         LowCardinality(String) CODEC(ZSTD(1)),
    thread       UInt32                 CODEC(T64, ZSTD(1)),
    culprit      LowCardinality(String) CODEC(ZSTD(1)),
    label_set    UInt64                 CODEC(ZSTD(1)),
    batch        UInt64                 CODEC(ZSTD(1)),
    seq          UInt64                 CODEC(Delta, ZSTD(1)),
    cut_day      Date                   CODEC(ZSTD(1))
) ENGINE = MergeTree
PARTITION BY cut_day
ORDER BY (host, thread, ts)
TTL toDateTime(ts) + INTERVAL {retention.intervals} HOUR
SETTINGS {durable};

-- Counts of run-queue delays per bucket in the period that ends at ts: of a host, a service, a CPU or a thread (scope).
-- Complete where the mechanism sees every switch; max_ns is the period's longest delay, repeated in each of its rows.
CREATE TABLE IF NOT EXISTS delay_counts (
    ts           DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    duration_ns  Int64                  CODEC(T64, ZSTD(1)),
    scope        LowCardinality(String) CODEC(ZSTD(1)),
    host         LowCardinality(String) CODEC(ZSTD(1)),
    service      LowCardinality(String) CODEC(ZSTD(1)),
    thread       UInt32                 CODEC(T64, ZSTD(1)),
    cpu          Nullable(Int32)        CODEC(ZSTD(1)),
    kind         LowCardinality(String) CODEC(ZSTD(1)),
    cells        String                 CODEC(ZSTD(3)),   -- bucket:n,bucket:n,...
    max_ns       Nullable(Int64)        CODEC(ZSTD(1)),
    batch        UInt64                 CODEC(ZSTD(1)),
    seq          UInt64                 CODEC(Delta, ZSTD(1)),
    cut_day      Date                   CODEC(ZSTD(1))
) ENGINE = MergeTree
PARTITION BY cut_day
ORDER BY (scope, host, ts, kind)
TTL toDateTime(ts) + INTERVAL {retention.delay_counts} HOUR
SETTINGS {durable};

-- What each clock said of itself. event: sample is the bound that stamps got, stated what another authority said;
-- step, sync_lost and sync_gained are what happened.
CREATE TABLE IF NOT EXISTS clock (
    ts             DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    host           LowCardinality(String) CODEC(ZSTD(1)),
    clock          LowCardinality(String) CODEC(ZSTD(1)),
    source         LowCardinality(String) CODEC(ZSTD(1)),
    event          LowCardinality(String) CODEC(ZSTD(1)),
    offset_ns      Nullable(Int64)        CODEC(ZSTD(1)),
    error_ns       Nullable(Int64)        CODEC(ZSTD(1)),
    frequency_ppb  Nullable(Float64)      CODEC(ZSTD(1)),
    step_ns        Nullable(Int64)        CODEC(ZSTD(1)),
    batch          UInt64                 CODEC(ZSTD(1)),
    seq            UInt64                 CODEC(Delta, ZSTD(1)),
    cut_day        Date                   CODEC(ZSTD(1))
) ENGINE = MergeTree
PARTITION BY cut_day
ORDER BY (host, clock, ts)
TTL toDateTime(ts) + INTERVAL {retention.clock} HOUR
SETTINGS {durable};

-- What one direction of a flow did in a period, as a tap saw it.
CREATE TABLE IF NOT EXISTS flows (
    ts                        DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    duration_ns               Int64                  CODEC(T64, ZSTD(1)),
    host                      LowCardinality(String) CODEC(ZSTD(1)),
    tap                       LowCardinality(String) CODEC(ZSTD(1)),
    interface                 LowCardinality(String) CODEC(ZSTD(1)),
    direction                 LowCardinality(String) CODEC(ZSTD(1)),
    time_source               LowCardinality(String) CODEC(ZSTD(1)),
    source                    String                 CODEC(ZSTD(1)),
    target                    String                 CODEC(ZSTD(1)),
    source_port               UInt16                 CODEC(ZSTD(1)),
    target_port               UInt16                 CODEC(ZSTD(1)),
    protocol                  UInt8                  CODEC(ZSTD(1)),
    vlan                      Nullable(UInt16)       CODEC(ZSTD(1)),
    packets                   UInt64                 CODEC(T64, ZSTD(1)),
    bytes                     UInt64                 CODEC(T64, ZSTD(1)),
    hops                      Nullable(UInt8)        CODEC(ZSTD(1)),
    ttl_min                   Nullable(UInt8)        CODEC(ZSTD(1)),
    ttl_max                   Nullable(UInt8)        CODEC(ZSTD(1)),
    dscp_min                  Nullable(UInt8)        CODEC(ZSTD(1)),
    dscp_max                  Nullable(UInt8)        CODEC(ZSTD(1)),
    coverage                  Float64                CODEC(ZSTD(1)),
    retransmissions           Nullable(UInt32)       CODEC(ZSTD(1)),
    fast_retransmissions      Nullable(UInt32)       CODEC(ZSTD(1)),
    spurious_retransmissions  Nullable(UInt32)       CODEC(ZSTD(1)),
    out_of_order              Nullable(UInt32)       CODEC(ZSTD(1)),
    duplicate_acks            Nullable(UInt32)       CODEC(ZSTD(1)),
    lost_segments             Nullable(UInt32)       CODEC(ZSTD(1)),
    zero_windows              Nullable(UInt32)       CODEC(ZSTD(1)),
    handshake_ns              Nullable(Int64)        CODEC(ZSTD(1)),
    rtt_samples               Nullable(UInt32)       CODEC(ZSTD(1)),
    rtt_min_ns                Nullable(Int64)        CODEC(ZSTD(1)),
    rtt_p50_ns                Nullable(Int64)        CODEC(ZSTD(1)),
    rtt_p99_ns                Nullable(Int64)        CODEC(ZSTD(1)),
    rtt_max_ns                Nullable(Int64)        CODEC(ZSTD(1)),
    batch                     UInt64                 CODEC(ZSTD(1)),
    seq                       UInt64                 CODEC(Delta, ZSTD(1)),
    cut_day                   Date                   CODEC(ZSTD(1))
) ENGINE = MergeTree
PARTITION BY cut_day
ORDER BY (toStartOfMinute(ts), host, tap, source, target)
TTL toDateTime(ts) + INTERVAL {retention.flows} HOUR
SETTINGS {durable};

-- What each line of each feed channel lost, repeated and reordered in an interval; line '' is all lines after
-- arbitration. Sums and largest values: intervals add up.
CREATE TABLE IF NOT EXISTS feeds (
    ts               DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    duration_ns      Int64                  CODEC(ZSTD(1)),
    channel          LowCardinality(String) CODEC(ZSTD(1)),
    line             LowCardinality(String) CODEC(ZSTD(1)),
    protocol         LowCardinality(String) CODEC(ZSTD(1)),
    host             LowCardinality(String) CODEC(ZSTD(1)),
    session          LowCardinality(String) CODEC(ZSTD(1)),
    datagrams        UInt64                 CODEC(T64, ZSTD(1)),
    bytes            UInt64                 CODEC(T64, ZSTD(1)),
    heartbeats       UInt64                 CODEC(T64, ZSTD(1)),
    ends             UInt64                 CODEC(T64, ZSTD(1)),
    messages         UInt64                 CODEC(T64, ZSTD(1)),   -- different numbers received
    duplicates       UInt64                 CODEC(T64, ZSTD(1)),   -- numbers received before on this line; on line '' the other lines' copies
    gaps             UInt64                 CODEC(T64, ZSTD(1)),
    skipped          UInt64                 CODEC(T64, ZSTD(1)),   -- numbers passed over; missing = skipped - out_of_order - late
    out_of_order     UInt64                 CODEC(T64, ZSTD(1)),
    late             UInt64                 CODEC(T64, ZSTD(1)),   -- filled a gap after the reorder window
    old              UInt64                 CODEC(T64, ZSTD(1)),   -- below everything remembered
    resets           UInt64                 CODEC(T64, ZSTD(1)),
    sessions         UInt64                 CODEC(T64, ZSTD(1)),
    wraps            UInt64                 CODEC(T64, ZSTD(1)),
    won              UInt64                 CODEC(T64, ZSTD(1)),   -- messages this line brought first
    pairs            UInt64                 CODEC(T64, ZSTD(1)),   -- copies compared with the first line's
    divergent        UInt64                 CODEC(T64, ZSTD(1)),   -- of them, with other content
    errors           UInt64                 CODEC(T64, ZSTD(1)),   -- datagrams that do not follow the protocol
    unknown          UInt64                 CODEC(T64, ZSTD(1)),   -- messages of an undeclared type
    kernel_drops     UInt64                 CODEC(T64, ZSTD(1)),   -- datagrams lost at the socket
    recovered_ns     Int64                  CODEC(ZSTD(1)),
    recovered_max_ns Int64                  CODEC(ZSTD(1)),
    skew_ns          Int64                  CODEC(ZSTD(1)),
    skew_max_ns      Int64                  CODEC(ZSTD(1)),
    delays           UInt64                 CODEC(T64, ZSTD(1)),   -- receipt minus send time
    delay_ns         Int64                  CODEC(ZSTD(1)),
    delay_min_ns     Nullable(Int64)        CODEC(ZSTD(1)),
    delay_max_ns     Nullable(Int64)        CODEC(ZSTD(1)),
    delay_error_ns   Nullable(Int64)        CODEC(ZSTD(1)),
    silence_ns       Nullable(Int64)        CODEC(ZSTD(1)),
    instruments      UInt32                 CODEC(ZSTD(1)),
    stale            UInt32                 CODEC(ZSTD(1)),
    open             UInt32                 CODEC(ZSTD(1)),
    schema_version   Nullable(Int32)        CODEC(ZSTD(1)),
    batch            UInt64                 CODEC(ZSTD(1)),
    seq              UInt64                 CODEC(Delta, ZSTD(1)),
    cut_day          Date                   CODEC(ZSTD(1))
) ENGINE = MergeTree
PARTITION BY cut_day
ORDER BY (channel, line, host, ts)
TTL toDateTime(ts) + INTERVAL {retention.feeds} HOUR
SETTINGS {durable};

-- Interned label sets: the same set has the same id everywhere (hash64('labels', canonical JSON)).
CREATE TABLE IF NOT EXISTS label_sets (
    label_set  UInt64,
    labels     String CODEC(ZSTD(1)),
    batch      UInt64 CODEC(ZSTD(1)),
    seq        UInt64 CODEC(ZSTD(1)),
    cut_day    Date   CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree
ORDER BY label_set
TTL cut_day + INTERVAL {retention.label_sets} HOUR
SETTINGS {durable};

-- What programs say about one message: a decision with its reason and inputs, a log line, a span with its W3C ids.
CREATE TABLE IF NOT EXISTS events (
    ts          DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    key         UInt64                 CODEC(ZSTD(1)),   -- 0 = of no message
    host        LowCardinality(String) CODEC(ZSTD(1)),
    service     LowCardinality(String) CODEC(ZSTD(1)),
    kind        LowCardinality(String) CODEC(ZSTD(1)),
    body        String                 CODEC(ZSTD(1)),
    attributes  String                 CODEC(ZSTD(1)),   -- JSON object
    batch       UInt64                 CODEC(ZSTD(1)),
    seq         UInt64                 CODEC(Delta, ZSTD(1)),
    cut_day     Date                   CODEC(ZSTD(1))
) ENGINE = MergeTree
PARTITION BY cut_day
ORDER BY (toStartOfMinute(ts), key, ts)
TTL toDateTime(ts) + INTERVAL {retention.events} HOUR
SETTINGS {durable};

-- Histograms of latencies as programs exported them; analytics/histograms.py makes windows of them.
CREATE TABLE IF NOT EXISTS histograms (
    ts          DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),   -- the interval's end
    start_ns    Int64                  CODEC(Delta, ZSTD(1)),
    host        LowCardinality(String) CODEC(ZSTD(1)),
    service     LowCardinality(String) CODEC(ZSTD(1)),
    name        LowCardinality(String) CODEC(ZSTD(1)),
    stream      UInt64                 CODEC(ZSTD(1)),
    cumulative  UInt16                 CODEC(ZSTD(1)),
    n           UInt64                 CODEC(ZSTD(1)),
    sum_ns      Nullable(Float64)      CODEC(ZSTD(1)),
    min_ns      Nullable(Int64)        CODEC(ZSTD(1)),
    max_ns      Nullable(Int64)        CODEC(ZSTD(1)),
    label_set   UInt64                 CODEC(ZSTD(1)),
    layout      String                 CODEC(ZSTD(1)),
    counts      String                 CODEC(ZSTD(1)),
    batch       UInt64                 CODEC(ZSTD(1)),
    seq         UInt64                 CODEC(Delta, ZSTD(1)),
    cut_day     Date                   CODEC(ZSTD(1))
) ENGINE = MergeTree
PARTITION BY cut_day
ORDER BY (service, name, ts, stream)
TTL toDateTime(ts) + INTERVAL {retention.stamps} HOUR
SETTINGS {durable};

-- What each host is set to: rows when an item is read first, changes or goes, and all of them now and then.
CREATE TABLE IF NOT EXISTS hosts (
    ts        DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    host      LowCardinality(String) CODEC(ZSTD(1)),
    item      LowCardinality(String) CODEC(ZSTD(1)),
    state     LowCardinality(String) CODEC(ZSTD(1)),
    value     String                 CODEC(ZSTD(1)),
    expected  String                 CODEC(ZSTD(1)),
    batch     UInt64                 CODEC(ZSTD(1)),
    seq       UInt64                 CODEC(Delta, ZSTD(1)),
    cut_day   Date                   CODEC(ZSTD(1))
) ENGINE = MergeTree
PARTITION BY cut_day
ORDER BY (host, item, ts)
TTL toDateTime(ts) + INTERVAL {retention.hosts} HOUR
SETTINGS {durable};

-- Who changed what and when: deploy, config, flag, SLO, rule, network. Appended by people and machines (batch = 0), and
-- shipped by collectors that saw a change. `recorded` is when it came here: what follows the stream goes by it.
CREATE TABLE IF NOT EXISTS changes (
    ts        DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    id        String                 CODEC(ZSTD(1)),
    kind      LowCardinality(String) CODEC(ZSTD(1)),
    who       String                 CODEC(ZSTD(1)),
    what      String                 CODEC(ZSTD(1)),
    host      LowCardinality(String) CODEC(ZSTD(1)),
    service   LowCardinality(String) CODEC(ZSTD(1)),
    version   String                 CODEC(ZSTD(1)),
    url       String                 CODEC(ZSTD(1)),
    labels    String                 CODEC(ZSTD(1)),
    recorded  DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    batch     UInt64                 CODEC(ZSTD(1)),
    seq       UInt64                 CODEC(Delta, ZSTD(1)),
    cut_day   Date DEFAULT toDate(recorded) CODEC(ZSTD(1))
) ENGINE = MergeTree
PARTITION BY toYYYYMM(recorded)
ORDER BY (ts, id)
TTL toDateTime(recorded) + INTERVAL {retention.changes} HOUR
SETTINGS {durable};

-- A business measure of an interval per cohort, channel, region and offer: value = numerator / weight. A corrected value
-- comes again with a larger version; read with FINAL.
CREATE TABLE IF NOT EXISTS kpis (
    ts           DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),   -- the interval's begin
    duration_ns  Int64                  CODEC(ZSTD(1)),
    name         LowCardinality(String) CODEC(ZSTD(1)),
    cohort       LowCardinality(String) CODEC(ZSTD(1)),
    channel      LowCardinality(String) CODEC(ZSTD(1)),
    region       LowCardinality(String) CODEC(ZSTD(1)),
    offer        LowCardinality(String) CODEC(ZSTD(1)),
    value        Float64                CODEC(ZSTD(1)),
    weight       Float64 DEFAULT 1      CODEC(ZSTD(1)),          -- the denominator; 1 for what is no ratio
    version      UInt64                 CODEC(Delta, ZSTD(1)),
    recorded     DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1)),   -- objectives recount what came late
    INDEX by_recorded recorded TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(ts)
ORDER BY (name, cohort, channel, region, offer, ts)
TTL toDateTime(ts) + INTERVAL {retention.kpis} HOUR
SETTINGS {durable};

-- A business measure of one message, tied to it by its key: order success, fill, slippage, markout, revenue. Versions as
-- above; partitioned by the key, so that a corrected time cannot leave the old row in another partition.
CREATE TABLE IF NOT EXISTS message_kpis (
    ts       DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    key      UInt64                 CODEC(ZSTD(1)),
    name     LowCardinality(String) CODEC(ZSTD(1)),
    cohort   LowCardinality(String) CODEC(ZSTD(1)),
    channel  LowCardinality(String) CODEC(ZSTD(1)),
    region   LowCardinality(String) CODEC(ZSTD(1)),
    offer    LowCardinality(String) CODEC(ZSTD(1)),
    value    Float64                CODEC(ZSTD(1)),
    version  UInt64                 CODEC(Delta, ZSTD(1)),
    recorded DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1)),   -- objectives recount what came late
    INDEX by_recorded recorded TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree(version)
ORDER BY (name, key)
TTL toDateTime(ts) + INTERVAL {retention.kpis} HOUR
SETTINGS {durable};

-- Who was assigned what by chance: of a message by its key, or of a unit by the value of a label of its messages, from
-- `since_ns` on. Versions as above.
CREATE TABLE IF NOT EXISTS assignments (
    ts          DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),   -- when it was assigned, or came: for how long it is kept
    since_ns    Int64                  CODEC(ZSTD(1)),          -- of a unit: from when it holds, 0: always
    experiment  LowCardinality(String) CODEC(ZSTD(1)),
    label       LowCardinality(String) CODEC(ZSTD(1)),   -- empty: of a message
    unit        String                 CODEC(ZSTD(1)),   -- the label's value
    key         UInt64                 CODEC(ZSTD(1)),   -- 0: of a unit
    arm         LowCardinality(String) CODEC(ZSTD(1)),
    dose        Nullable(Float64)      CODEC(ZSTD(1)),   -- null: not said
    version     UInt64                 CODEC(Delta, ZSTD(1))
) ENGINE = ReplacingMergeTree(version)
ORDER BY (experiment, label, unit, key, since_ns)
TTL toDateTime(ts) + INTERVAL {retention.kpis} HOUR
SETTINGS {durable};

-- The ledger: one row per shipped batch, written last. A batch without its row is not acknowledged.
-- No TTL: it must outlive the data plus the longest spool.
CREATE TABLE IF NOT EXISTS batches (
    batch         UInt64,
    collector     UUID,
    name          LowCardinality(String),
    host          LowCardinality(String),
    boot          UInt32,
    seq_first     UInt64,
    events        UInt64,                         -- seq_first .. seq_first + events - 1 are accounted for here
    stored        UInt64,
    quarantined   UInt64,
    dropped       UInt64,
    reasons       Array(LowCardinality(String)),  -- of dropped and quarantined events
    reason_counts Array(UInt64),
    tables        Array(LowCardinality(String)),
    table_rows    Array(UInt64),
    first_ts      DateTime64(9, 'UTC'),           -- event times of the stored rows; 1970 when there are none
    last_ts       DateTime64(9, 'UTC'),
    seconds       Array(UInt32),                  -- completeness: per second of cutting, what was produced
    produced_by_second Array(UInt64),             -- and what of it is missing (dropped or quarantined)
    missing_by_second  Array(UInt64),
    cut           DateTime64(9, 'UTC'),
    cut_day       Date,
    received      DateTime64(9, 'UTC'),
    checksum      UInt32,                         -- CRC32C of the batch's bytes
    bytes         UInt64,
    attempt       UInt32,
    -- The ledger never shrinks: what is asked every few seconds must not read all of it.
    INDEX cut_range cut TYPE minmax GRANULARITY 1,
    INDEX received_range received TYPE minmax GRANULARITY 1,
    INDEX first_range first_ts TYPE minmax GRANULARITY 1,
    INDEX last_range last_ts TYPE minmax GRANULARITY 1,
    -- Completeness of a month (analytics/completeness.py) and the account of every boot (analytics/ledger.py). A
    -- projection is written with its part: it cannot drift. The sums of hashes tell whether batches tile a range.
    PROJECTION by_hour (
        SELECT toStartOfHour(cut), collector, boot, sum(events), sum(dropped), sum(quarantined), sum(stored),
            min(seq_first), max(seq_first + events), sum(sipHash64(seq_first)), sum(sipHash64(seq_first + events)),
            sumMap(CAST(reasons, 'Array(String)'), reason_counts), any(name), any(host)
        GROUP BY toStartOfHour(cut), collector, boot
    )
) ENGINE = MergeTree
PARTITION BY toYYYYMM(cut_day)
ORDER BY (collector, boot, seq_first)
SETTINGS {durable};

-- What the collectors said of themselves, every few seconds: state, watermark, and what they still hold.
CREATE TABLE IF NOT EXISTS heartbeats (
    ts          DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    collector   UUID,
    boot        UInt32,
    name        LowCardinality(String),
    host        LowCardinality(String),
    status      LowCardinality(String),  -- running, degraded, unavailable, stopped
    reason      String                 CODEC(ZSTD(1)),
    watermark   DateTime64(9, 'UTC'),    -- every event before this time has been cut into a batch
    produced    UInt64,
    acked       UInt64,                  -- every event with a smaller sequence number is acknowledged
    in_flight   UInt64,
    spool_bytes UInt64,
    INDEX ts_range ts TYPE minmax GRANULARITY 1,
    PROJECTION by_hour (
        SELECT toStartOfHour(ts), collector, boot, any(name), min(ts), max(ts), max(watermark), max(produced),
            max(acked), argMax(status, ts), argMax(name, ts), argMax(host, ts), argMax(reason, ts),
            argMax(in_flight, ts), argMax(spool_bytes, ts)
        GROUP BY toStartOfHour(ts), collector, boot
    )
) ENGINE = MergeTree
PARTITION BY toMonday(ts)
ORDER BY (collector, boot, ts)
TTL toDateTime(ts) + INTERVAL {retention.heartbeats} HOUR;

-- Rows that could not be stored, as they came, with the reason. They count as quarantined in the ledger.
CREATE TABLE IF NOT EXISTS quarantine (
    received   DateTime64(9, 'UTC'),
    batch      UInt64,
    seq        UInt64,
    `table`    LowCardinality(String),
    reason     LowCardinality(String),
    error      String CODEC(ZSTD(1)),
    row        String CODEC(ZSTD(1)),   -- JSON of the row
    cut_day    Date
) ENGINE = MergeTree
PARTITION BY cut_day
ORDER BY (received, batch, seq)
TTL toDateTime(received) + INTERVAL {retention.quarantine} HOUR
SETTINGS {durable};

-- One message of one path: where its time went. Rows of older generations of a window are not visible to readers.
CREATE TABLE IF NOT EXISTS messages (
    path         LowCardinality(String)       CODEC(ZSTD(1)),
    window       DateTime('UTC')              CODEC(Delta, ZSTD(1)),
    generation   UInt64                       CODEC(ZSTD(1)),
    key          UInt64                       CODEC(ZSTD(1)),
    start        DateTime64(9, 'UTC')         CODEC(Delta, T64, ZSTD(1)),
    e2e_ns       Nullable(Int64)              CODEC(ZSTD(1)),   -- null: unfinished
    e2e_error_ns Nullable(UInt32)             CODEC(ZSTD(1)),   -- null: unknown
    stage_ns     Array(Nullable(Int64))       CODEC(ZSTD(1)),   -- in the path's stage order; null: an end is missing
    stage_error_ns Array(Nullable(UInt32))    CODEC(ZSTD(1)),
    stage_host   Array(LowCardinality(String)) CODEC(ZSTD(1)),  -- host of the stage's later end
    stage_thread Array(UInt32)                CODEC(ZSTD(1)),
    stage_depth  Array(Nullable(Int32))       CODEC(ZSTD(1)),   -- queue depth seen at the stage's first end
    duplicates   UInt16                       CODEC(ZSTD(1)),   -- stamps beyond the first at a point
    repeated     UInt64                       CODEC(ZSTD(1)),   -- bit i: an end of stage i was stamped more than once; then end_to_end
    host         LowCardinality(String)       CODEC(ZSTD(1)),   -- of the last end; of the latest stamp while unfinished
    service      LowCardinality(String)       CODEC(ZSTD(1)),
    outcome      Enum8('unset' = 0, 'ok' = 1, 'error' = 2, 'rejected' = 3, 'shed' = 4, 'timeout' = 5) CODEC(ZSTD(1)),
    mode         Enum8('unset' = 0, 'normal' = 1, 'cached' = 2, 'fallback' = 3, 'shadow' = 4, 'synthetic' = 5) CODEC(ZSTD(1)),
    cache        Enum8('unset' = 0, 'hit' = 1, 'stale' = 2, 'miss' = 3) CODEC(ZSTD(1)),
    data_age_ns  Nullable(Int64)              CODEC(ZSTD(1)),
    weight       Float32                      CODEC(ZSTD(1)),
    label_set    UInt64                       CODEC(ZSTD(1)),
    completeness Nullable(Float32)            CODEC(ZSTD(1)),
    written      DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))
) ENGINE = MergeTree
PARTITION BY toDate(window)
ORDER BY (path, window, start, key)
TTL greatest(window, written) + INTERVAL {retention.messages} HOUR
SETTINGS {durable};

-- Counts per HdrHistogram log-linear bucket (7 sub-bucket bits). Stages include end_to_end and unattributed.
-- Negative latencies have negative buckets. level is the window's length in seconds: 10, 60, 3600.
CREATE TABLE IF NOT EXISTS stage_counts (
    path        LowCardinality(String) CODEC(ZSTD(1)),
    level       UInt16                 CODEC(ZSTD(1)),
    window      DateTime('UTC')        CODEC(Delta, ZSTD(1)),
    generation  UInt64                 CODEC(ZSTD(1)),
    stage       LowCardinality(String) CODEC(ZSTD(1)),
    rollup      LowCardinality(String) CODEC(ZSTD(1)),   -- '' = all messages, else 'label=value'
    bucket      Int16                  CODEC(Delta, ZSTD(1)),
    n           UInt64                 CODEC(T64, ZSTD(1)),
    written     DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1)),  -- imported logs are older than the retention of live windows
    -- Months are summed from days of hours (analytics/tally.py). Of the finer levels it keeps one row per rollup.
    PROJECTION days (
        SELECT path, rollup, level, if(level = 3600, toUInt32(toStartOfDay(window)), 0),
            if(level = 3600, cityHash64(stage), 0), if(level = 3600, bucket, 0), sum(n)
        GROUP BY path, rollup, level, if(level = 3600, toUInt32(toStartOfDay(window)), 0),
            if(level = 3600, cityHash64(stage), 0), if(level = 3600, bucket, 0)
    )
) ENGINE = MergeTree
PARTITION BY (level, toYYYYMM(window))
ORDER BY (path, rollup, stage, window, bucket)
TTL greatest(window, written) + INTERVAL {retention.counts_10s} HOUR DELETE WHERE level = 10,
    greatest(window, written) + INTERVAL {retention.counts_1m} HOUR DELETE WHERE level = 60,
    greatest(window, written) + INTERVAL {retention.counts_1h} HOUR DELETE WHERE level = 3600
SETTINGS {durable}, lightweight_mutation_projection_mode = 'rebuild';

-- What buckets cannot hold exactly: extremes, sums, and what is not a latency at all.
CREATE TABLE IF NOT EXISTS stage_windows (
    path        LowCardinality(String) CODEC(ZSTD(1)),
    level       UInt16                 CODEC(ZSTD(1)),
    window      DateTime('UTC')        CODEC(Delta, ZSTD(1)),
    generation  UInt64                 CODEC(ZSTD(1)),
    stage       LowCardinality(String) CODEC(ZSTD(1)),
    rollup      LowCardinality(String) CODEC(ZSTD(1)),
    n           UInt64,
    unfinished  UInt64,
    missing     UInt64,             -- finished messages without this stage
    negative    UInt64,
    below_resolution UInt64,        -- smaller than its own clock error
    error_unknown UInt64,           -- no clock bound known
    repeated    UInt64,             -- an end was stamped more than once
    sum_ns      Int64,
    min_ns      Int64,
    max_ns      Int64,
    max_error_ns UInt64,            -- largest known clock error among them
    written     DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1))  -- imported logs are older than the retention of live windows
) ENGINE = MergeTree
PARTITION BY (level, toYYYYMM(window))
ORDER BY (path, rollup, stage, window)
TTL greatest(window, written) + INTERVAL {retention.counts_10s} HOUR DELETE WHERE level = 10,
    greatest(window, written) + INTERVAL {retention.counts_1m} HOUR DELETE WHERE level = 60,
    greatest(window, written) + INTERVAL {retention.counts_1h} HOUR DELETE WHERE level = 3600
SETTINGS {durable};

-- The commit record of a window: readers see the rows of the largest generation that has one. A row of level 0 is the
-- window job's position in the ledger: everything received before it is settled.
CREATE TABLE IF NOT EXISTS windows (
    path        LowCardinality(String),
    level       UInt16,
    window      DateTime('UTC'),
    generation  UInt64,
    state       Enum8('provisional' = 1, 'final' = 2),
    messages    UInt64,
    finished    UInt64,
    unfinished  UInt64,
    headless    UInt64,             -- messages whose start is unknown: not among the messages, by their earliest stamp
    stamps      UInt64,
    completeness Nullable(Float64),
    basis       UInt64,             -- what it was computed from: level 10 the xor of the ledger's batches that touch it,
                                    -- levels 60 and 3600 the largest generation of their level 10 windows
    computed    DateTime64(9, 'UTC')
) ENGINE = MergeTree
PARTITION BY (level, toYYYYMM(window))
ORDER BY (path, level, window, generation)
TTL greatest(window, toDateTime(computed)) + INTERVAL {retention.counts_10s} HOUR DELETE WHERE level = 10,
    greatest(window, toDateTime(computed)) + INTERVAL {retention.counts_1m} HOUR DELETE WHERE level = 60,
    greatest(window, toDateTime(computed)) + INTERVAL {retention.counts_1h} HOUR DELETE WHERE level = 3600
SETTINGS {durable};

-- Good and total per objective version and window; the SLO evaluation reads nothing else. A row is a whole answer: of
-- several for a window the one of the largest generation counts. Levels 60 and 3600 are sums of level 10.
CREATE TABLE IF NOT EXISTS objective_counts (
    objective   LowCardinality(String) CODEC(ZSTD(1)),
    version     UInt32                 CODEC(ZSTD(1)),
    level       UInt16                 CODEC(ZSTD(1)),
    window      DateTime('UTC')        CODEC(Delta, ZSTD(1)),
    generation  UInt64                 CODEC(ZSTD(1)),
    good        UInt64                 CODEC(T64, ZSTD(1)),
    total       UInt64                 CODEC(T64, ZSTD(1)),
    uncertain   UInt64                 CODEC(T64, ZSTD(1)),  -- in a bucket that the threshold cuts, where messages no longer live
    written     DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1)),
    INDEX by_written written TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree(generation)
PARTITION BY (level, toYYYYMM(window))
ORDER BY (level, window, objective, version)
TTL greatest(window, written) + INTERVAL {retention.counts_10s} HOUR DELETE WHERE level = 10,
    greatest(window, written) + INTERVAL {retention.counts_1m} HOUR DELETE WHERE level = 60,
    greatest(window, written) + INTERVAL {retention.counts_1h} HOUR DELETE WHERE level = 3600
SETTINGS {durable};

-- What is configured, for who reads the store alone (analytics/declared.py): rows of the newest `applied` are in force.
CREATE TABLE IF NOT EXISTS paths (
    path         String,
    stages       Array(String),   -- in order: messages.stage_ns has the same
    classes      Array(String),
    budgets_ns   Array(Int64),    -- 0: none
    sentences    Array(String),
    revenue_node String,
    applied      DateTime64(9, 'UTC')
) ENGINE = MergeTree
ORDER BY (applied, path)
TTL toDateTime(applied) + INTERVAL {retention.changes} HOUR
SETTINGS {durable};

CREATE TABLE IF NOT EXISTS objectives (
    objective  String,
    version    UInt32,            -- which rows of objective_counts are its own
    slo        String,
    service    String,
    target     Float64,
    period_s   UInt32,
    indicator  String,
    applied    DateTime64(9, 'UTC')
) ENGINE = MergeTree
ORDER BY (applied, objective)
TTL toDateTime(applied) + INTERVAL {retention.changes} HOUR
SETTINGS {durable};

-- What priced objectives cost per hour, as computed every half minute over the `window_s` seconds before `ts`
-- (api/costs.py). `value` is null where it cannot be told from nothing, all three where it is not known: `reason` says why.
CREATE TABLE IF NOT EXISTS costs (
    ts         DateTime64(9, 'UTC')   CODEC(Delta, ZSTD(1)),
    objective  LowCardinality(String) CODEC(ZSTD(1)),
    path       LowCardinality(String) CODEC(ZSTD(1)),   -- whose revenue
    window_s   UInt32                 CODEC(ZSTD(1)),
    value      Nullable(Float64)      CODEC(ZSTD(1)),   -- per hour, in `currency`
    low        Nullable(Float64)      CODEC(ZSTD(1)),   -- 95 % interval
    high       Nullable(Float64)      CODEC(ZSTD(1)),
    currency   LowCardinality(String) CODEC(ZSTD(1)),
    design     LowCardinality(String) CODEC(ZSTD(1)),   -- of the effect
    reason     LowCardinality(String) CODEC(ZSTD(1))
) ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (objective, ts)
TTL toDateTime(ts) + INTERVAL {retention.kpis} HOUR
SETTINGS {durable};

-- Paths that nobody configured: learned from what arrives (analytics/learned.py). The newest version of a name counts.
CREATE TABLE IF NOT EXISTS learned_paths (
    name       String,
    origin     LowCardinality(String),     -- spans, histogram
    body       String CODEC(ZSTD(1)),      -- JSON of the path and when it was seen
    last_seen  DateTime64(9, 'UTC'),
    version    UInt64
) ENGINE = ReplacingMergeTree(version)
ORDER BY name
TTL toDateTime(last_seen) + INTERVAL {retention.learned_paths} HOUR
SETTINGS {durable};

-- Imported HdrHistogram logs, at their own precision, beside the counts they were folded into.
CREATE TABLE IF NOT EXISTS hlogs (
    path        LowCardinality(String),
    stage       LowCardinality(String),
    tag         LowCardinality(String),
    start       DateTime64(9, 'UTC'),
    length_ns   Int64,
    digits      UInt8,
    unit_ns     Float64,
    max         Float64,
    n           UInt64,
    histogram   String CODEC(ZSTD(1)),  -- the compressed V2 payload as it was in the file
    source      String,
    import_id   UInt64,
    expected_interval_ns Int64,     -- coordinated omission is corrected for this interval when counted; 0 = not at all
    imported    DateTime('UTC') DEFAULT now()
) ENGINE = MergeTree
PARTITION BY toYYYYMM(start)
ORDER BY (path, stage, tag, start)
TTL greatest(toDateTime(start), imported) + INTERVAL {retention.hlogs} HOUR
SETTINGS {durable};

-- The append-only log of critical actions. No TTL: the leaf stays when the data goes.
CREATE TABLE IF NOT EXISTS audit (
    -- Whose log it is: of a pair of servers each has its own; '' is the one of a server alone.
    chain     LowCardinality(String) DEFAULT '',
    leaf      UInt64,
    ts        DateTime64(9, 'UTC'),
    actor     String,
    action    LowCardinality(String),
    target    String,
    outcome   LowCardinality(String),
    detail    String CODEC(ZSTD(1)),
    hash      FixedString(32)
) ENGINE = MergeTree
ORDER BY (chain, leaf)
SETTINGS {durable};
