-- How many agent runs there are.
SELECT count(*) AS runs FROM calls_1m WHERE kind = 'agent' AND counted
