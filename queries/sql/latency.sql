-- Latencies of tool calls by steps of $step_us microseconds since 1970, from the sums of tool_sums_1m.sql or tool_sums_1h.sql,
-- in the order of time.
SELECT
    CAST(minute AS BIGINT) / $step_us * $step_us AS start_us,
    sum(attempts) AS attempts,
    hdr_merge(latency) AS latency,
    sum(weight) AS weight
FROM tool_sums
GROUP BY CAST(minute AS BIGINT) / $step_us * $step_us
ORDER BY start_us
