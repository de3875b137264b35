-- Sessions: the counted rows of all kinds. A session is over when nothing of it has happened for {session_idle_us}
-- microseconds, up to the watermark; what has the same id after that is another session. Iterations are calls of models. Tokens and cost are those of tools and models; what
-- an agent's row says of them is the sum of its parts, and not added. Its outcome is that of its last agent run, or of
-- its last row; it is completed if that went well.
WITH placed AS (
    SELECT
        tenant, session_id, start_time, end_time, row_id, kind, final, outcome, input_tokens, output_tokens, cost_usd,
        max(end_time) OVER (
            PARTITION BY tenant, session_id ORDER BY start_time, end_time, row_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS active_until
    FROM calls
    WHERE counted AND session_id IS NOT NULL
),
parts AS (
    SELECT
        *,
        sum(CASE WHEN CAST(start_time AS BIGINT) - CAST(active_until AS BIGINT) > {session_idle_us} THEN 1 ELSE 0 END)
            OVER (
                PARTITION BY tenant, session_id ORDER BY start_time, end_time, row_id
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ) AS part
    FROM placed
)
SELECT
    tenant,
    session_id,
    min(start_time) AS start_time,
    max(end_time) AS end_time,
    (CAST(max(end_time) AS BIGINT) - CAST(min(start_time) AS BIGINT)) * 1000 AS duration_ns,
    CAST($watermark AS BIGINT) - CAST(max(end_time) AS BIGINT) > {session_idle_us} AS closed,
    coalesce(
        last_value(outcome ORDER BY end_time, row_id) FILTER (WHERE kind = 'agent'),
        last_value(outcome ORDER BY end_time, row_id)
    ) AS outcome,
    coalesce(
        last_value(outcome ORDER BY end_time, row_id) FILTER (WHERE kind = 'agent'),
        last_value(outcome ORDER BY end_time, row_id)
    ) = 'ok' AS completed,
    count(*) FILTER (WHERE kind = 'tool') AS tool_calls,
    count(*) FILTER (WHERE kind = 'tool' AND final) AS logical_tool_calls,
    count(*) FILTER (WHERE kind = 'tool' AND outcome = 'error') AS tool_errors,
    count(*) FILTER (WHERE kind = 'tool' AND final AND outcome = 'error') AS logical_tool_errors,
    count(*) FILTER (WHERE kind = 'model') AS model_calls,
    count(*) FILTER (WHERE kind = 'model') AS iterations,
    count(*) FILTER (WHERE kind = 'agent') AS agent_runs,
    sum(input_tokens) FILTER (WHERE kind <> 'agent') AS input_tokens,
    sum(output_tokens) FILTER (WHERE kind <> 'agent') AS output_tokens,
    sum(cost_usd) FILTER (WHERE kind <> 'agent') AS cost_usd
FROM parts
GROUP BY tenant, session_id, part
