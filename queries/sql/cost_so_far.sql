-- Known cost of the minutes from $begin to before $now: of the day and of the month that are running, and of the last day
-- and week, from which the rest is forecast; and the first minute that has a call.
SELECT
    sum(cost_usd) FILTER (WHERE minute >= $day) AS day_usd,
    sum(cost_usd) FILTER (WHERE minute >= $month) AS month_usd,
    sum(cost_usd) FILTER (WHERE minute >= $day_ago) AS last_day_usd,
    sum(cost_usd) FILTER (WHERE minute >= $week_ago) AS last_week_usd,
    min(minute) AS first_minute
FROM calls_1m
WHERE counted AND kind IN ({kinds})
    AND minute >= $begin AND minute < $now
    AND ($service IS NULL OR service_name = $service)
    AND ($environment IS NULL OR environment = $environment)
