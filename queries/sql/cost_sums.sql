-- Sums of counted calls over [$from, $to) by {name}, from the calls themselves. Runs of agents repeat what their parts
-- cost, and are left out.
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
    AND end_time >= $from AND end_time < $to
    AND ($service IS NULL OR service_name = $service)
    AND ($environment IS NULL OR environment = $environment)
GROUP BY tenant, {name}, {server}, kind, outcome
