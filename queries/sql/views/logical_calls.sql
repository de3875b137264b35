-- Logical calls of tools: an attempt and its retries are one. The row is that of the last attempt, with the minute in which it
-- ended, its outcome and its error; `attempts` is its number, `first_start_time` when the first attempt began, `lost_ns` the time
-- from there to the start of the last one. Its attempts are the rows of `tool_calls` with the same `logical_call_id`.
SELECT
    coalesce(hex(logical_call_id), hex(row_id)) AS logical_call_id,
    date,
    tenant,
    service_name,
    environment,
    tool_server,
    tool_name,
    agent_name,
    session_id,
    user_id,
    team,
    hex(trace_id) AS trace_id,
    arrow_cast(CAST(start_time AS BIGINT) - coalesce(retry_lost_ns, 0) / 1000, 'Timestamp(Microsecond, Some("UTC"))')
        AS first_start_time,
    end_time,
    duration_ns,
    coalesce(retry_lost_ns, 0) AS lost_ns,
    attempt AS attempts,
    outcome,
    error_class,
    weight,
    wal_position
FROM calls
WHERE kind = 'tool' AND counted AND final
