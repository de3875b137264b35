-- Figures of each tool, by attempt and by logical call, from the sums of tool_sums.sql, tool_sums_1m.sql or
-- tool_sums_1h.sql. Most calls first. A count of nothing is null.
SELECT
    tenant,
    tool_server,
    tool_name,
    sum(attempts) AS attempts,
    sum(attempts) FILTER (WHERE outcome = 'ok') AS attempts_ok,
    coalesce(sum(attempts) FILTER (WHERE final), 0) AS calls,
    sum(attempts) FILTER (WHERE final AND outcome = 'ok') AS calls_ok,
    sum(retries) AS retries,
    hdr_merge(latency) AS latency,
    sum(cost_usd) AS cost_usd,
    sum(priced) AS priced,
    sum(priced) FILTER (WHERE outcome = 'ok') AS priced_ok,
    sum(cost_usd) FILTER (WHERE outcome = 'error') AS wasted_usd,
    max(last_end_time) AS last_seen,
    -- Retries. What a logical call lost by them is in its last attempt.
    sum(retries) FILTER (WHERE final AND outcome = 'ok') AS recovered,
    sum(attempts_sum) FILTER (WHERE final AND outcome = 'ok') AS attempts_to_success,
    sum(retry_lost_ns) FILTER (WHERE final) AS retry_lost_ns,
    hdr_merge(retry_delay) AS retry_delay,
    sum(recent_attempts) AS recent_attempts,
    sum(recent_retries) AS recent_retries,
    -- Sums of weights.
    sum(weight) AS weight,
    sum(weight) FILTER (WHERE outcome = 'ok') AS weight_ok,
    sum(weight) FILTER (WHERE final) AS weight_calls,
    sum(weight) FILTER (WHERE final AND outcome = 'ok') AS weight_calls_ok,
    sum(weighted_retries) AS weight_retries,
    sum(weight_squares) AS weight_squares,
    sum(weight_squares) FILTER (WHERE final) AS weight_squares_calls,
    -- Failed attempts by error class; the column's name is the class.
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'none') AS none,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'transient') AS transient,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'timeout') AS timeout,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'rate_limited') AS rate_limited,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'quota_exceeded') AS quota_exceeded,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'invalid_input') AS invalid_input,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'invalid_output') AS invalid_output,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'unauthorized') AS unauthorized,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'policy_denied') AS policy_denied,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'not_found') AS not_found,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'semantic') AS semantic,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'server') AS server,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'circuit_open') AS circuit_open,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'cancelled') AS cancelled,
    sum(attempts) FILTER (WHERE outcome = 'error' AND error_class = 'unknown') AS unknown
FROM tool_sums
GROUP BY tenant, tool_server, tool_name
ORDER BY calls DESC, attempts DESC, tenant, tool_server, tool_name
