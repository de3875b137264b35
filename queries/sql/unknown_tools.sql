-- Names of tools that have never succeeded: inventions of a model, or tools that are broken from the beginning.
SELECT tenant, tool_server, tool_name, sum(calls) AS calls, count(DISTINCT service_name) AS services,
  max(last_end_time) AS last_seen
FROM calls_1h
WHERE kind = 'tool' AND counted
GROUP BY tenant, tool_server, tool_name
HAVING sum(calls) FILTER (WHERE outcome = 'ok') IS NULL
ORDER BY calls DESC, tool_name
