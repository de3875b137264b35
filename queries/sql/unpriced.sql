-- Tools and models with calls from $from on whose cost is not known, most such calls first.
SELECT
    kind,
    tenant,
    CASE WHEN kind = 'tool' THEN tool_name ELSE model END AS name,
    CASE WHEN kind = 'tool' THEN tool_server END AS tool_server,
    sum(calls) AS attempts,
    sum(calls - priced_calls) AS unpriced
FROM calls_1m
WHERE counted AND kind IN ('tool', 'model') AND minute >= $from
GROUP BY kind, tenant, CASE WHEN kind = 'tool' THEN tool_name ELSE model END, CASE WHEN kind = 'tool' THEN tool_server END
HAVING sum(calls - priced_calls) > 0
ORDER BY unpriced DESC, kind, tenant, name, tool_server
