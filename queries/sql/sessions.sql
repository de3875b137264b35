-- Sessions whose last call so far ended in the range, the latest first.
SELECT
    tenant,
    session_id,
    start_time,
    end_time,
    duration_ns,
    CAST(closed AS BIGINT) AS closed,
    outcome,
    CAST(completed AS BIGINT) AS completed,
    iterations,
    tool_calls,
    logical_tool_calls,
    tool_errors,
    logical_tool_errors,
    agent_runs,
    input_tokens,
    output_tokens,
    cost_usd
FROM sessions
WHERE end_time >= $from AND end_time < $to
ORDER BY end_time DESC, tenant, session_id, start_time
LIMIT {limit}
