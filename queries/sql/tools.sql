-- Figures of each tool over [$from, $to), by attempt and by logical call. Most calls first.
SELECT
    tenant,
    tool_server,
    tool_name,
    count(*) AS attempts,
    count(*) FILTER (WHERE outcome = 'ok') AS attempts_ok,
    count(*) FILTER (WHERE final) AS calls,
    count(*) FILTER (WHERE final AND outcome = 'ok') AS calls_ok,
    count(*) FILTER (WHERE attempt > 1) AS retries,
    latency_quantiles(duration_ns, 0.5, 0.9, 0.95, 0.99) AS latency_ns,
    sum(cost_usd) AS cost_usd,
    count(cost_usd) AS priced,
    count(cost_usd) FILTER (WHERE outcome = 'ok') AS priced_ok,
    sum(cost_usd) FILTER (WHERE outcome = 'error') AS wasted_usd,
    max(end_time) AS last_seen,
    -- Failed attempts by error class; the column's name is the class.
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'none') AS none,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'transient') AS transient,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'timeout') AS timeout,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'rate_limited') AS rate_limited,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'quota_exceeded') AS quota_exceeded,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'invalid_input') AS invalid_input,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'invalid_output') AS invalid_output,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'unauthorized') AS unauthorized,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'policy_denied') AS policy_denied,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'not_found') AS not_found,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'semantic') AS semantic,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'server') AS server,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'circuit_open') AS circuit_open,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'cancelled') AS cancelled,
    count(*) FILTER (WHERE outcome = 'error' AND error_class = 'unknown') AS unknown
FROM tool_calls
WHERE end_time >= $from AND end_time < $to
    AND ($service IS NULL OR service_name = $service)
    AND ($environment IS NULL OR environment = $environment)
GROUP BY tenant, tool_server, tool_name
ORDER BY calls DESC, attempts DESC, tenant, tool_server, tool_name
