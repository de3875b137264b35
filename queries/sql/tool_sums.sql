-- Sums of tool calls over [$from, $to), from the calls themselves.
SELECT
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
WHERE end_time >= $from AND end_time < $to
    AND ($service IS NULL OR service_name = $service)
    AND ($environment IS NULL OR environment = $environment)
    AND ($tool IS NULL OR tool_name = $tool)
    AND ($server IS NULL OR tool_server = $server)
GROUP BY tenant, tool_server, tool_name, outcome, error_class, final
