//! Agents of pydantic-ai with a scripted model, and the client and server of the MCP Python SDK in two processes, each with
//! the telemetry that it brings along.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use toolgauge::config::Time;

use crate::process::Process;
use crate::python_sdk::script;
use crate::sandbox::{Api, Sandbox, nanos};

/// Scenario: agents whose model asks for parallel calls with equal arguments, for calls that fail and are tried again, for
/// tools that an MCP server in another process carries out, and for one that ends the run; then calls of the MCP client
/// alone, which also asks for what is no call. Guarantees: every call that a tool wrote down counts once, with its
/// outcome, id and attempt, whichever of three layers told of it; models are priced to the ninth decimal.
#[tokio::test(flavor = "multi_thread")]
async fn agents_and_mcp_in_two_processes_are_counted_as_their_tools_wrote_it_down() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // However long the scripts take on a busy machine, what they send are relatives.
    let (mut process, doors) = Process::start(Process::command(&data, &[("TOOLGAUGE_SETTLE_AFTER", "10m")])).await;
    let ledger = script("live_agent.py", &[format!("http://{}", doors.otlp), "1".to_owned()], &[]).await;
    doors.api.until_visible().await;
    compare(&doors.api, &ledger).await;
    process.terminate();
    assert!(process.until_ended().await.success(), "{}", process.stderr());
    // In this process the time that settles rows can be moved.
    let sandbox = Sandbox::start_with(|config| {
        config.data = data;
        config.settle.after = Time(Duration::from_secs(600));
    })
    .await;
    sandbox.until_committed().await;
    compare(&sandbox.api, &ledger).await;
    sandbox.stop().await;
}

async fn compare(api: &Api, ledger: &Value) {
    let mut call_ids = BTreeMap::<String, Vec<String>>::new();
    let ids = "SELECT tool_name, call_id FROM tool_calls WHERE call_id IS NOT NULL ORDER BY 1, 2";
    for row in api.sql(ids).await {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        call_ids.entry(text(&row[0])).or_default().push(text(&row[1]));
    }
    let figures = "SELECT tool_name, count(*), count(*) FILTER (WHERE outcome = 'error'), \
        count(*) FILTER (WHERE attempt > 1), count(*) FILTER (WHERE final), min(duration_ns) FROM tool_calls GROUP BY 1";
    let tools = ledger["tools"].as_object().unwrap();
    let rows = api.sql(figures).await;
    assert_eq!(rows.len(), tools.len());
    for row in rows {
        let name = row[0].as_str().unwrap();
        let tool = &tools[name];
        assert_eq!(row[1..5], ["calls", "errors", "retries", "final"].map(|key| tool[key].clone()), "{name}");
        assert!(row[5].as_u64() >= tool["min_ns"].as_u64(), "{name}: {row:?}");
        let mut expected: Vec<String> = serde_json::from_value(tool["call_ids"].clone()).unwrap();
        expected.sort_unstable();
        assert_eq!(call_ids.remove(name).unwrap_or_default(), expected, "{name}");
    }

    let models = &ledger["models"];
    let found = "SELECT count(*), sum(input_tokens), sum(output_tokens), sum(cached_input_tokens), sum(cost_usd) FROM model_calls";
    let found = api.row(found).await;
    let keys = ["calls", "input_tokens", "output_tokens", "cached_input_tokens"];
    assert_eq!(found[..4], keys.map(|key| models[key].clone()));
    assert_eq!(nanos(found[4].as_str().unwrap()), nanos(models["cost"].as_str().unwrap()));

    let agents = api.sql("SELECT agent_name, count(*) FROM agent_runs GROUP BY 1").await;
    let agents: serde_json::Map<String, Value> =
        agents.into_iter().map(|row| (row[0].as_str().unwrap().to_owned(), row[1].clone())).collect();
    assert_eq!(json!(agents), ledger["agents"]);

    // Client and server told of each call of the server's tool, and the agent of most.
    let layers =
        api.sql("SELECT layer, count(*) FROM calls WHERE tool_name = 'stock_level' GROUP BY 1 ORDER BY 1").await;
    let all = &ledger["tools"]["stock_level"]["calls"];
    let by_agents = ledger["tools"]["stock_level"]["call_ids"].as_array().unwrap().len();
    assert_eq!(json!(layers), json!([["agent", by_agents], ["client", all], ["server", all]]));
    assert_eq!(api.number("SELECT sum(unreadable) + sum(quarantined) FROM arrivals").await, 0);
}
