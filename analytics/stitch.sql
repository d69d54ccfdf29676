-- All messages of one path that start in [{from_ns}, {to_ns}). analytics/stitch.py fills in what depends on the path
-- where a dollar sign stands. Times inside are integers: nanoseconds since the epoch.
--
-- A start is a stamp at the first end with no other of its key in the max_age before it. Stamps belong to the start s
-- when they lie in [s - skew, s + max_age], unless an earlier start of the same key reaches them (lo).
WITH
$starts
$keys
stitched AS (
    SELECT
        leaf, s, any(links) AS links,
        argMax(place, t) AS latest,
$aggregates
        argMaxIf(label_set, t, label_set != 0) AS labels,
        argMaxIf(outcome, t, outcome != 'unset') AS outcome_said,
        argMaxIf(mode, t, mode != 'unset') AS mode_said,
        argMaxIf(cache, t, cache != 'unset') AS cache_said,
        argMax(data_age_ns, t) AS age
    FROM (
        SELECT
            key,
            toUnixTimestamp64Nano(ts) AS t,
$codes
            -- Where and by which clock: host, clock, service (16, 8, 8 bits) and thread; then the bound and the depth.
            bitOr(bitOr(bitOr(
                bitShiftLeft(toUInt64(transform(host, {hosts:Array(String)}, {host_codes:Array(UInt16)}, toUInt16(0))), 48),
                bitShiftLeft(toUInt64(transform(clock, {clocks:Array(String)}, {clock_codes:Array(UInt8)}, toUInt8(0))), 40)),
                bitShiftLeft(toUInt64(transform(service, {services:Array(String)}, {service_codes:Array(UInt8)}, toUInt8(0))), 32)),
                toUInt64(thread)) AS place,
            bitOr(bitShiftLeft(toUInt64(ifNull(error_ns, 4294967295)), 32), toUInt64(toUInt32(ifNull(depth, -2147483648)))) AS state,
            bitOr(bitShiftLeft(toUInt128(place), 64), toUInt128(state)) AS seen,
            label_set, outcome, mode, cache, data_age_ns
        FROM stamps
        WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64} - {skew:Int64}, 'UTC')
            AND ts <= fromUnixTimestamp64Nano({to_ns:Int64} + {max_age:Int64}, 'UTC')
            AND point IN {points:Array(String)}
    ) AS stamp
    INNER JOIN keys ON stamp.key = keys.k
    WHERE t >= lo AND t <= hi
    GROUP BY $group
)
SELECT
$columns
FROM stitched
WHERE $counts
