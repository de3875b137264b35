-- As tool_sums_1m.sql: the whole hours of the range, from $first_hour to before $end_hour, from their sums in calls_1h; the whole
-- minutes before and after them, from $first and to before $end, from calls_1m; the rest from the calls themselves.
SELECT
    hour AS minute,
    tenant,
    tool_server,
    tool_name,
    outcome,
    error_class,
    final,
    calls AS attempts,
    retries,
    latency,
    cost_usd,
    priced_calls AS priced,
    last_end_time
FROM calls_1h
WHERE kind = 'tool' AND counted
    AND hour >= $first_hour AND hour < $end_hour
    AND ($service IS NULL OR service_name = $service)
    AND ($environment IS NULL OR environment = $environment)
    AND ($tool IS NULL OR tool_name = $tool)
    AND ($server IS NULL OR tool_server = $server)
UNION ALL
SELECT
    minute,
    tenant,
    tool_server,
    tool_name,
    outcome,
    error_class,
    final,
    calls AS attempts,
    retries,
    latency,
    cost_usd,
    priced_calls AS priced,
    last_end_time
FROM calls_1m
WHERE kind = 'tool' AND counted
    AND ((minute >= $first AND minute < $first_hour) OR (minute >= $end_hour AND minute < $end))
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
    outcome,
    error_class,
    final,
    count(*) AS attempts,
    count(*) FILTER (WHERE attempt > 1) AS retries,
    hdr_histogram(duration_ns) AS latency,
    sum(cost_usd) AS cost_usd,
    count(cost_usd) AS priced,
    max(end_time) AS last_end_time
FROM tool_calls
WHERE ((end_time >= $from AND end_time < $first) OR (end_time >= $end AND end_time < $to))
    AND ($service IS NULL OR service_name = $service)
    AND ($environment IS NULL OR environment = $environment)
    AND ($tool IS NULL OR tool_name = $tool)
    AND ($server IS NULL OR tool_server = $server)
GROUP BY date_trunc('minute', end_time), tenant, tool_server, tool_name, outcome, error_class, final
