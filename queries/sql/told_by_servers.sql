-- Calls from $since to before $to that servers of tools tell of and that name a parent, by whether they failed, and whether a view of
-- their caller is there: then theirs does not count.
SELECT
    tenant,
    tool_server,
    tool_name,
    count(*) FILTER (WHERE outcome = 'error') AS failed,
    count(*) FILTER (WHERE outcome = 'error' AND NOT counted) AS failed_with_caller,
    count(*) FILTER (WHERE outcome = 'ok') AS succeeded,
    count(*) FILTER (WHERE outcome = 'ok' AND NOT counted) AS succeeded_with_caller
FROM calls
WHERE kind = 'tool' AND layer = 'server' AND parent_span_id IS NOT NULL
    AND end_time >= $since AND end_time < $to
GROUP BY tenant, tool_server, tool_name
ORDER BY tenant, tool_server, tool_name
