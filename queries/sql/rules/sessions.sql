-- Of the sessions whose last call so far is in a window, by group: how many they are, and a quantile of a figure of each. A session is over when
-- nothing of it has happened for {idle_us} microseconds; what has the same id after that is another one.
WITH placed AS (
    SELECT
        *,
        max(end_time) OVER (
            PARTITION BY {by}tenant, session_id ORDER BY start_time, end_time, row_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS active_until
    FROM calls
    WHERE counted AND session_id IS NOT NULL AND {scope}
),
parts AS (
    SELECT
        *,
        sum(CASE WHEN CAST(start_time AS BIGINT) - CAST(active_until AS BIGINT) > {idle_us} THEN 1 ELSE 0 END)
            OVER (
                PARTITION BY {by}tenant, session_id ORDER BY start_time, end_time, row_id
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ) AS part
    FROM placed
),
figures AS (
    SELECT {by}{value} AS figure
    FROM parts
    GROUP BY {by}tenant, session_id, part
    HAVING max(end_time) >= TIMESTAMP '{from}'
),
ranked AS (
    SELECT {by}figure, row_number() OVER ({over} ORDER BY figure) AS rank, count(*) OVER ({over}) AS sessions
    FROM figures
    WHERE figure IS NOT NULL
)
SELECT {by}sessions, CAST(figure AS VARCHAR) AS figure
FROM ranked
WHERE rank = greatest((sessions * {quantile} + 999999999) / 1000000000, 1)
ORDER BY sessions DESC
LIMIT {groups_max}
