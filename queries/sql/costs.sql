-- What calls have cost, by group, from the sums of cost_sums.sql or cost_sums_1m.sql. The dearest first; a count of
-- nothing is null.
SELECT
    tenant,
    name,
    tool_server,
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
GROUP BY tenant, name, tool_server
ORDER BY cost_usd DESC NULLS LAST, attempts DESC, tenant, name, tool_server
