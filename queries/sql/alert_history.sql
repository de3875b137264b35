-- Changes of state of the evaluator's alerts from $from to before $to, newest first.
SELECT time, position, fingerprint, labels, previous_state, state, reason
FROM alerts
WHERE source = 'evaluator' AND time >= $from AND time < $to
    AND ($state IS NULL OR state = $state)
    AND ($severity IS NULL OR severity = $severity)
ORDER BY position DESC, time DESC, fingerprint
