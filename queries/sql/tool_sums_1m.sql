-- As tool_sums.sql, with the minute: the whole minutes of the range, from $first to before $end, from their sums in
-- calls_1m; what of the range lies before and after them from the calls themselves.
SELECT
    minute,
    tenant,
    tool_server,
    tool_name,
    service_name,
    outcome,
    error_class,
    final,
    calls AS attempts,
    retries,
    latency,
    cost_usd,
    priced_calls AS priced,
    last_end_time,
    CASE WHEN minute >= $recent THEN calls ELSE 0 END AS recent_attempts,
    CASE WHEN minute >= $recent THEN retries ELSE 0 END AS recent_retries,
    calls + coalesce(further_attempts, 0) AS attempts_sum,
    retry_lost_ns_sum AS retry_lost_ns,
    retry_delay,
    weighted_calls AS weight,
    CAST(retries AS DECIMAL(18, 6)) + coalesce(retries_further_weight, 0) AS weighted_retries,
    CAST(calls AS DECIMAL(18, 6)) + coalesce(further_weight_squares, 0) AS weight_squares
FROM calls_1m
WHERE kind = 'tool' AND counted
    AND minute >= $first AND minute < $end
    AND ($service IS NULL OR service_name = $service)
    AND ($environment IS NULL OR environment = $environment)
    AND ($tool IS NULL OR tool_name = $tool)
    AND ($server IS NULL OR tool_server = $server)
UNION ALL
SELECT
    date_trunc('minute', end_time) AS minute,
    tenant,
    tool_server,
    tool_name,
    service_name,
    outcome,
    error_class,
    final,
    count(*) AS attempts,
    count(*) FILTER (WHERE attempt > 1) AS retries,
    hdr_histogram(duration_ns) AS latency,
    sum(cost_usd) AS cost_usd,
    count(cost_usd) AS priced,
    max(end_time) AS last_end_time,
    count(*) FILTER (WHERE end_time >= $recent) AS recent_attempts,
    count(*) FILTER (WHERE end_time >= $recent AND attempt > 1) AS recent_retries,
    sum(attempt) AS attempts_sum,
    sum(retry_lost_ns) AS retry_lost_ns,
    hdr_histogram(retry_delay_ns) AS retry_delay,
    sum(weight) AS weight,
    sum(CASE WHEN attempt > 1 THEN weight ELSE 0 END) AS weighted_retries,
    sum(CAST(
        least(weight, CAST('999999.999999' AS DECIMAL(18, 6))) * least(weight, CAST('999999.999999' AS DECIMAL(18, 6)))
        AS DECIMAL(38, 6)
    )) AS weight_squares
FROM tool_calls
WHERE ((end_time >= $from AND end_time < $first) OR (end_time >= $end AND end_time < $to))
    AND ($service IS NULL OR service_name = $service)
    AND ($environment IS NULL OR environment = $environment)
    AND ($tool IS NULL OR tool_name = $tool)
    AND ($server IS NULL OR tool_server = $server)
GROUP BY date_trunc('minute', end_time), tenant, tool_server, tool_name, service_name, outcome,
    error_class, final
