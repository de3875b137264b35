-- How many agent runs there are.
SELECT count(*) AS runs FROM calls_1h WHERE kind = 'agent' AND counted
