-- How long the first 1,000 successful logical calls of a tool took.
SELECT duration_ns
FROM calls
WHERE kind = 'tool' AND counted AND final AND outcome = 'ok'
  AND tenant = $tenant AND coalesce(tool_server, '') = $server AND tool_name = $tool
ORDER BY end_time, row_id
LIMIT 1000
