-- The services that called each tool in the range, from the sums of tool_sums.sql or tool_sums_1m.sql.
SELECT DISTINCT tenant, tool_server, tool_name, service_name
FROM tool_sums
ORDER BY tenant, tool_server, tool_name, service_name
