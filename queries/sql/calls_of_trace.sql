-- The rows of a trace, counted or not, as they began.
SELECT
    hex(span_id) AS span_id,
    signal,
    kind,
    tool_server,
    tool_name,
    agent_name,
    model,
    session_id,
    convention,
    layer,
    counted,
    attempt,
    final,
    outcome,
    error_class,
    error_type,
    start_time,
    duration_ns
FROM calls
WHERE trace_id = $trace_id
ORDER BY start_time, end_time, row_id
