-- Messages whose start is unknown, per 10 s window of [{first_ns}, {end_ns}). Their stamps lie at ends of the path
-- other than the first, and no start reaches them. A key's stamps that are at most max_age apart are of one of them;
-- its earliest says the window. {from_ns} and {to_ns} bound the starts that could reach such a stamp. Stamps in mode
-- shadow or synthetic are no users' and are left out.
WITH
$starts
$keys
claims AS (SELECT k, groupArray((lo, hi)) AS spans FROM keys GROUP BY k)
SELECT toUInt32(intDiv(earliest, 10000000000) * 10) AS window, count() AS messages
FROM (
    SELECT
        arraySort(groupArray(t)) AS times,
        arrayJoin(arrayFilter(i -> i = 1 OR times[i] - times[i - 1] > {max_age:Int64}, arrayEnumerate(times))) AS i,
        times[i] AS earliest
    FROM (
        SELECT key, toUnixTimestamp64Nano(ts) AS t FROM stamps
        WHERE ts >= fromUnixTimestamp64Nano({first_ns:Int64} - {max_age:Int64}, 'UTC')
            AND ts < fromUnixTimestamp64Nano({end_ns:Int64}, 'UTC')
            AND ($later_ends)
            AND mode NOT IN ('shadow', 'synthetic')
    ) AS stamp
    LEFT ANY JOIN claims ON stamp.key = claims.k
    WHERE NOT arrayExists(span -> t >= span.1 AND t <= span.2, spans)
    GROUP BY key
)
WHERE earliest >= {first_ns:Int64}
GROUP BY window
