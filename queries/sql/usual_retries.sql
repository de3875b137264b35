-- Attempts and retries of each tool in the hours from $history to before $recent, from their sums in calls_1h.
SELECT
    tenant,
    tool_server,
    tool_name,
    sum(calls) AS attempts,
    sum(retries) AS retries
FROM calls_1h
WHERE kind = 'tool' AND counted
    AND hour >= $history AND hour < $recent
    AND ($service IS NULL OR service_name = $service)
    AND ($environment IS NULL OR environment = $environment)
    AND ($tool IS NULL OR tool_name = $tool)
    AND ($server IS NULL OR tool_server = $server)
GROUP BY tenant, tool_server, tool_name
