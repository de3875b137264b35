-- Tools that have had $successes successes within 24 hours (by whole hours), with the first hour of each; those that came first, first.
WITH hours AS (
  SELECT tenant, coalesce(tool_server, '') AS tool_server, tool_name, date_trunc('hour', minute) AS hour,
    sum(calls) AS successes
  FROM calls_1m
  WHERE kind = 'tool' AND counted AND outcome = 'ok' AND tool_name IS NOT NULL
  GROUP BY 1, 2, 3, 4
), days AS (
  SELECT tenant, tool_server, tool_name, hour,
    sum(successes) OVER (
      PARTITION BY tenant, tool_server, tool_name ORDER BY hour
      RANGE BETWEEN INTERVAL '23' HOUR PRECEDING AND CURRENT ROW
    ) AS successes
  FROM hours
)
SELECT tenant, tool_server, tool_name
FROM days
GROUP BY tenant, tool_server, tool_name
HAVING max(successes) >= $successes
ORDER BY min(hour), tenant, tool_server, tool_name
