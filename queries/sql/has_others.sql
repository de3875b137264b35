-- Whether the sums of the dates from $from_date to $to_date have calls whose names were folded into one.
SELECT count(*) > 0 AS others
FROM calls_1h
WHERE date >= $from_date AND date <= $to_date
    -- By each, so that files are left out whose names all lie before or behind it.
    AND (
        service_name = '__other__' OR environment = '__other__' OR tool_server = '__other__' OR tool_name = '__other__'
        OR agent_name = '__other__' OR model = '__other__'
    )
