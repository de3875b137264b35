-- How long the first successful logical calls of a tool took, at most 1,000, of those that ended from $from to before $until.
SELECT duration_ns
FROM calls
WHERE kind = 'tool' AND counted AND final AND outcome = 'ok'
  AND tenant = $tenant AND coalesce(tool_server, '') = $server AND tool_name = $tool
  AND end_time >= $from AND end_time < $until
  AND date >= CAST($from AS DATE) AND date <= CAST($until AS DATE)
ORDER BY end_time, row_id
LIMIT 1000
