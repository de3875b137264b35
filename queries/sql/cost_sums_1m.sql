-- As cost_sums.sql: the whole minutes of the range, from $first to before $end, from their sums in calls_1m; what of the
-- range lies before and after them from the calls themselves.
SELECT
    tenant,
    {name} AS name,
    {server} AS tool_server,
    kind,
    outcome,
    sum(calls) AS attempts,
    sum(priced_calls) AS priced,
    sum(cost_usd) AS cost_usd,
    sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens,
    sum(weighted_calls) AS weight
FROM calls_1m
WHERE counted AND kind IN ({kinds})
    AND minute >= $first AND minute < $end
    AND ($service IS NULL OR service_name = $service)
    AND ($environment IS NULL OR environment = $environment)
GROUP BY tenant, {name}, {server}, kind, outcome
UNION ALL
SELECT
    tenant,
    {name} AS name,
    {server} AS tool_server,
    kind,
    outcome,
    count(*) AS attempts,
    count(cost_usd) AS priced,
    sum(cost_usd) AS cost_usd,
    sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens,
    sum(weight) AS weight
FROM calls
WHERE counted AND kind IN ({kinds})
    AND ((end_time >= $from AND end_time < $first) OR (end_time >= $end AND end_time < $to))
    AND ($service IS NULL OR service_name = $service)
    AND ($environment IS NULL OR environment = $environment)
GROUP BY tenant, {name}, {server}, kind, outcome
