-- Whether the sums of the dates from $from_date to $to_date have calls whose names were folded into one.
SELECT count(*) > 0 AS others
FROM calls_1h
WHERE date >= $from_date AND date <= $to_date
    AND '__other__' IN (
        coalesce(service_name, ''), coalesce(environment, ''), coalesce(tool_server, ''), coalesce(tool_name, ''),
        coalesce(agent_name, ''), coalesce(model, '')
    )
