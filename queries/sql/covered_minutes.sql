-- Minutes from $from to before $to in which exports were accepted, and whether $running, the minute that the
-- watermark stands in, is one of them.
SELECT
    count(DISTINCT minute) AS covered,
    count(*) FILTER (WHERE minute = $running) > 0 AS running
FROM arrivals
WHERE minute >= $from AND minute < $to
