-- Sums of tool calls over [$from, $to), from the calls themselves.
SELECT
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
WHERE end_time >= $from AND end_time < $to
    AND ($service IS NULL OR service_name = $service)
    AND ($environment IS NULL OR environment = $environment)
    AND ($tool IS NULL OR tool_name = $tool)
    AND ($server IS NULL OR tool_server = $server)
GROUP BY tenant, tool_server, tool_name, service_name, outcome, error_class, final
