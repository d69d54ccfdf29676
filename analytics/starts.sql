-- Where messages of a path start: stamps at its first end with no other of their key in the max_age before. Stamps of
-- the key from lo on belong to the start s, up to s + max_age; before lo they belong to an earlier one.
starts AS (
    SELECT root, s, lo
    FROM (
        SELECT
            key AS root,
            arraySort(groupArray(toUnixTimestamp64Nano(ts))) AS times,
            arrayJoin(arrayFilter(i -> i = 1 OR times[i] - times[i - 1] > {max_age:Int64}, arrayEnumerate(times))) AS i,
            times[i] AS s,
            greatest(s - {skew:Int64}, if(i = 1, 0, times[i - 1] + {max_age:Int64} + 1)) AS lo
        FROM stamps
        WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64} - {max_age:Int64} - {skew:Int64}, 'UTC')
            AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
            AND $first_end
        GROUP BY key
    )
    WHERE s >= {from_ns:Int64} AND s < {to_ns:Int64}
),
