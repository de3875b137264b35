//! What the commands print.

use std::process::Command;

use prost::Message as _;

use crate::process::{program, run};
use crate::sandbox::{Sandbox, TRACES, now_ns};
use crate::traffic::{double, failed, request, text, tool_span};

const MS: u64 = 1_000_000;

/// Two tools: one that was tried twice and cost something, one with a comma in its name.
async fn shop() -> Sandbox {
    let sandbox = Sandbox::start().await;
    let start = now_ns() - 1_000 * MS;
    let charge = |number: u64, start: u64, duration: u64| {
        let mut span = tool_span("charge", 1, number, start, duration);
        span.attributes.push(text("gen_ai.tool.call.id", "call-1"));
        span.attributes.push(double("toolgauge.cost.usd", 0.25));
        span
    };
    let mut look_up = tool_span("look, up", 1, 3, start, 40 * MS);
    look_up.attributes.push(text("mcp.server.name", "docs"));
    let spans = vec![failed(charge(1, start, 100 * MS), "TimeoutError"), charge(2, start + 200 * MS, 10 * MS), look_up];
    sandbox.client().await.export(TRACES, &request("shop", spans).encode_to_vec()).await;
    sandbox.api.until_visible().await;
    sandbox
}

fn ask(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(arguments).args(["--url", &sandbox.api.url]);
    command
}

/// The lines without spaces at their ends, which tables have to fill their last column.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_prints_a_table_json_or_csv() {
    let sandbox = shop().await;
    let query = "SELECT tool_name, count(*) AS n, sum(cost_usd) AS cost, max(tool_server) AS server FROM tool_calls GROUP BY 1 ORDER BY 1";
    let (code, stdout, stderr) = run(ask(&sandbox, &["sql", query])).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(
        lines(&stdout),
        [" tool_name  n         cost  server", " charge     2  0.500000000", " look, up   1               docs",]
    );
    let (_, stdout, _) = run(ask(&sandbox, &["sql", query, "--format", "csv"])).await;
    assert_eq!(lines(&stdout), ["tool_name,n,cost,server", "charge,2,0.500000000,", "\"look, up\",1,,docs"]);
    let (_, stdout, _) = run(ask(&sandbox, &["sql", query, "--format", "json"])).await;
    let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let rows = serde_json::json!([["charge", 2, "0.500000000", null], ["look, up", 1, null, "docs"]]);
    assert_eq!((&answer["rows"], &answer["truncated"]), (&rows, &false.into()));
    assert_eq!(answer["columns"][1], serde_json::json!({ "name": "n", "type": "Int64" }));

    let (code, stdout, stderr) = run(ask(&sandbox, &["sql", "DROP TABLE calls"])).await;
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("toolgauge: Bad Request: only one reading statement is allowed"), "{stderr}");
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_report_prints_a_table_json_or_csv() {
    let sandbox = shop().await;
    let (code, stdout, stderr) = run(ask(&sandbox, &["report", "tools"])).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    let printed = lines(&stdout);
    assert_eq!(
        printed[..3],
        [
            " server  tool      attempts  calls  success/attempt  success/call  retries  recovered  lost s  stand for  of which ok  sample  p50 ms  p95 ms  p99 ms  cost USD  cost/call  cost/success  owner  errors",
            "         charge           2      1          50.00 %      100.00 %  50.00 %   100.00 %     0.2                                    10.0   100.0  100.0?       0.5       0.25           0.5         timeout 1",
            " docs    look, up         1      1         100.00 %      100.00 %   0.00 %                0.0                                    40.0    40.0   40.0?",
        ]
    );
    assert!(
        printed[4].contains(", coverage ") && printed[4].contains(" %, 3 rows provisional, watermark "),
        "{stdout}"
    );

    let (_, stdout, _) = run(ask(&sandbox, &["report", "tools", "--format", "csv", "--from", "-1h"])).await;
    assert_eq!(
        lines(&stdout),
        [
            "server,tool,attempts,calls,success/attempt,success/call,retries,recovered,lost s,stand for,of which ok,sample,p50 ms,p95 ms,p99 ms,cost USD,cost/call,cost/success,owner,errors",
            ",charge,2,1,50.00 %,100.00 %,50.00 %,100.00 %,0.2,,,,10.0,100.0,100.0?,0.5,0.25,0.5,,timeout 1",
            "docs,\"look, up\",1,1,100.00 %,100.00 %,0.00 %,,0.0,,,,40.0,40.0,40.0?,,,,,",
        ]
    );
    let (_, stdout, _) = run(ask(&sandbox, &["report", "tools", "--format", "json", "--service", "shop"])).await;
    let report: toolgauge_proto::api::ToolsReport = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report.tools.len(), 2);
    let (_, stdout, _) = run(ask(&sandbox, &["report", "tools", "--format", "csv", "--service", "a & b=c"])).await;
    assert_eq!(lines(&stdout).len(), 1, "a service that nobody has");
    let (code, _, stderr) = run(ask(&sandbox, &["report", "tools", "--from", "yesterday"])).await;
    assert!(code == 1 && stderr.contains("\"from\" must be an RFC 3339 instant"), "{code}: {stderr}");
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_said_so() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = program();
    command.args(["sql", "SELECT 1", "--url", &format!("http://{free}")]);
    let (code, _, stderr) = run(command).await;
    let expected = format!("toolgauge: reach the server at http://{free}");
    assert!(
        code == 1 && stderr.starts_with(&expected) && stderr.contains("is `toolgauge serve` running there?"),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn config_show_prints_what_gives_the_same_configuration_again() {
    let folder = tempfile::tempdir().unwrap();
    let show = async |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = program();
        command.args(["config", "show"]).args(arguments).envs(environment.iter().copied());
        let (code, stdout, stderr) = run(command).await;
        assert_eq!((code, stderr.as_str()), (0, ""));
        stdout
    };
    let shown =
        show(&["--data", "/some/where"], &[("TOOLGAUGE_WAL_RETAIN", "512MiB"), ("TOOLGAUGE_SETTLE_AFTER", "90s")])
            .await;
    for line in ["data = \"/some/where\"", "retain = \"512MiB\"", "after = \"90s\""] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
    }
    let file = folder.path().join("toolgauge.toml");
    std::fs::write(&file, &shown).unwrap();
    let file = file.display().to_string();
    assert_eq!(show(&["--config", &file], &[]).await, shown);
    let mut command = program();
    command.args(["config", "check", "--config", &file]);
    assert_eq!(run(command).await, (0, "the configuration is fine\n".to_owned(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alertmanager_that_is_given_twice_is_said_so_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for arguments in [&["serve"][..], &["config", "check"]] {
        let mut command = program();
        command.args(arguments).arg("--data").arg(&data);
        command.args(["--alertmanager", "http://x/one", "--alertmanager", "http://user:secret@x:80/one/"]);
        let (code, _, stderr) = run(command).await;
        assert_eq!(code, 2, "{stderr}");
        assert!(
            stderr.contains("the Alertmanager http://x/one is given twice (remove one") && !stderr.contains("secret"),
            "{stderr}"
        );
    }
    assert!(!data.exists());
}
