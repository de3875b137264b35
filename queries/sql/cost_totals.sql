-- As costs.sql, of all groups together.
SELECT
    CAST(NULL AS VARCHAR) AS tenant,
    CAST(NULL AS VARCHAR) AS name,
    CAST(NULL AS VARCHAR) AS tool_server,
    sum(attempts) AS attempts,
    sum(attempts) FILTER (WHERE outcome = 'ok') AS attempts_ok,
    sum(priced) AS priced,
    sum(priced) FILTER (WHERE outcome = 'ok') AS priced_ok,
    sum(cost_usd) AS cost_usd,
    sum(cost_usd) FILTER (WHERE outcome = 'error') AS wasted_usd,
    sum(cost_usd) FILTER (WHERE kind = 'tool') AS tools_usd,
    sum(cost_usd) FILTER (WHERE kind = 'model') AS models_usd,
    sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens,
    sum(weight) AS weight
FROM cost_sums
