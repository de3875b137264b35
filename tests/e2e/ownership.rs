//! Who owns which tools: in rows and reports, and after the file has changed.

use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};
use toolgauge::config::Time;
use toolgauge_proto::api::ToolOwner;

use crate::sandbox::{LIMIT, Sandbox, TRACES, now_ns, until};
use crate::traffic::{request, text, tool_span};

const MS: u64 = 1_000_000;

const FILE: &str = r#"
[[owner]]
tool = "charge"
team = "payments"
criticality = "critical"
runbook = "https://runbooks.example/payments"

[[owner]]
service = "shop-*"
team = "shop"
"#;

/// Scenario: calls of owned tools, one of which names another team itself; then the file changes.
/// Guarantees: rows and reports name the owners, an attribute wins, rows keep their team, and later ones get the new one.
#[tokio::test(flavor = "multi_thread")]
async fn rows_and_reports_name_the_owners_of_tools() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("owners.toml");
    std::fs::write(&path, FILE).unwrap();
    let sandbox = Sandbox::start_with(|config| {
        config.ownership = Some(path.clone());
        config.alerting.interval = Time(Duration::from_millis(20));
    })
    .await;
    let mut client = sandbox.client().await;
    let send = |service: &str, tool: &str, number: u64, team: Option<&str>| {
        let mut span = tool_span(tool, number, 1, now_ns() - 10 * MS, MS);
        span.attributes.extend(team.map(|team| text("toolgauge.team", team)));
        request(service, vec![span]).encode_to_vec()
    };
    for (number, (service, tool, team)) in [
        ("shop-eu", "charge", None),
        ("shop-us", "search", None),
        ("web", "search", None),
        ("web", "charge", Some("billing")),
    ]
    .into_iter()
    .enumerate()
    {
        client.export(TRACES, &send(service, tool, number as u64 + 1, team)).await;
    }
    sandbox.api.until_visible().await;
    let teams = "SELECT service_name, tool_name, team FROM calls ORDER BY 1, 2";
    let row = |service: &str, tool: &str, team: Value| vec![json!(service), json!(tool), team];
    let expected = [
        row("shop-eu", "charge", json!("payments")),
        row("shop-us", "search", json!("shop")),
        row("web", "charge", json!("billing")),
        row("web", "search", Value::Null),
    ];
    assert_eq!(sandbox.api.sql(teams).await, expected);
    let owner = |team: &str, critical: bool, services: &[&str]| ToolOwner {
        team: team.to_owned(),
        criticality: critical.then(|| "critical".to_owned()),
        runbook: critical.then(|| format!("https://runbooks.example/{team}")),
        services: services.iter().map(|service| (*service).to_owned()).collect(),
    };
    let owners = async |tool: &str| {
        let tools = sandbox.api.tools().await;
        tools.into_iter().find(|found| found.tool_name.as_deref() == Some(tool)).unwrap().owners
    };
    assert_eq!(owners("charge").await, [owner("payments", true, &["shop-eu", "web"])]);
    assert_eq!(owners("search").await, [owner("shop", false, &["shop-us"])]);

    std::fs::write(&path, "[[owner]]\nteam = 1").unwrap();
    std::fs::write(&path, FILE.replace("payments", "money")).unwrap();
    until(LIMIT, "the new owners are named", async || {
        (owners("charge").await == [owner("money", true, &["shop-eu", "web"])]).then_some(())
    })
    .await;
    client.export(TRACES, &send("shop-eu", "charge", 9, None)).await;
    sandbox.api.until_visible().await;
    let now = "SELECT team, count(*) FROM calls WHERE tool_name = 'charge' GROUP BY 1 ORDER BY 1";
    let counts = [("billing", 1), ("money", 1), ("payments", 1)].map(|(team, n)| vec![json!(team), json!(n)]);
    assert_eq!(sandbox.api.sql(now).await, counts);
    sandbox.stop().await;
}
