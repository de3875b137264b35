-- Runs of agents, each counted once.
SELECT * REPLACE (
    hex(row_id) AS row_id,
    hex(trace_id) AS trace_id,
    hex(span_id) AS span_id,
    hex(parent_span_id) AS parent_span_id,
    coalesce(hex(logical_call_id), hex(row_id)) AS logical_call_id
)
FROM calls
WHERE kind = 'agent' AND counted
