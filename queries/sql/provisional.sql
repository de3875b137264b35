-- Rows of the report over [$from, $to) that later arrivals may still change.
SELECT count(*) AS provisional
FROM tool_calls
WHERE end_time >= $from AND end_time < $to
    AND ($service IS NULL OR service_name = $service)
    AND ($environment IS NULL OR environment = $environment)
    AND ($tool IS NULL OR tool_name = $tool)
    AND ($server IS NULL OR tool_server = $server)
    AND wal_position > $settled
