-- Tools that have had $successes successes within 24 hours, those that came first, first. Of each, the hour of its first success, and the hours in which
-- the first 100, 200, 400, 800 and 1,000 were complete.
WITH hours AS (
  SELECT tenant, coalesce(tool_server, '') AS tool_server, tool_name, hour, sum(calls) AS successes
  FROM calls_1h
  WHERE kind = 'tool' AND counted AND outcome = 'ok' AND tool_name IS NOT NULL
  GROUP BY 1, 2, 3, 4
), sums AS (
  SELECT tenant, tool_server, tool_name, hour,
    sum(successes) OVER (
      PARTITION BY tenant, tool_server, tool_name ORDER BY hour
      RANGE BETWEEN INTERVAL '23' HOUR PRECEDING AND CURRENT ROW
    ) AS in_a_day,
    sum(successes) OVER (PARTITION BY tenant, tool_server, tool_name ORDER BY hour) AS so_far
  FROM hours
)
SELECT tenant, tool_server, tool_name, min(hour) AS first_hour,
  min(hour) FILTER (WHERE so_far >= 100) AS hour_100,
  min(hour) FILTER (WHERE so_far >= 200) AS hour_200,
  min(hour) FILTER (WHERE so_far >= 400) AS hour_400,
  min(hour) FILTER (WHERE so_far >= 800) AS hour_800,
  min(hour) FILTER (WHERE so_far >= 1000) AS hour_1000
FROM sums
GROUP BY tenant, tool_server, tool_name
HAVING max(in_a_day) >= $successes
ORDER BY first_hour, tenant, tool_server, tool_name
