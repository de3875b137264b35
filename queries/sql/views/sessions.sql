-- Sessions: the counted rows of all kinds. Tokens and cost are those of tools and models; what an agent's row says of
-- them is the sum of its parts, and not added.
SELECT
    tenant,
    session_id,
    min(start_time) AS start_time,
    max(end_time) AS end_time,
    (CAST(max(end_time) AS BIGINT) - CAST(min(start_time) AS BIGINT)) * 1000 AS duration_ns,
    count(*) FILTER (WHERE kind = 'tool') AS tool_calls,
    count(*) FILTER (WHERE kind = 'tool' AND final) AS logical_tool_calls,
    count(*) FILTER (WHERE kind = 'tool' AND outcome = 'error') AS tool_errors,
    count(*) FILTER (WHERE kind = 'tool' AND final AND outcome = 'error') AS logical_tool_errors,
    count(*) FILTER (WHERE kind = 'model') AS model_calls,
    count(*) FILTER (WHERE kind = 'agent') AS agent_runs,
    sum(input_tokens) FILTER (WHERE kind <> 'agent') AS input_tokens,
    sum(output_tokens) FILTER (WHERE kind <> 'agent') AS output_tokens,
    sum(cost_usd) FILTER (WHERE kind <> 'agent') AS cost_usd
FROM calls
WHERE counted AND session_id IS NOT NULL
GROUP BY tenant, session_id
