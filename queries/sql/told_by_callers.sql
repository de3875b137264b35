-- Which services tell of calls of which tools as their callers, from $since to before $to.
SELECT DISTINCT tenant, service_name, tool_server, tool_name
FROM calls
WHERE kind = 'tool' AND counted AND layer <> 'server'
    AND end_time >= $since AND end_time < $to
ORDER BY tenant, service_name, tool_server, tool_name
