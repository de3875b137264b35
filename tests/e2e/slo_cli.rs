//! The commands for SLOs, over the calls of a running server and of a data folder.

use prost::Message as _;

use crate::process::{program, run};
use crate::sandbox::{LIMIT, Sandbox, TRACES, now_ns, until};
use crate::traffic::{failed, request, text, tool_span};

const MINUTE_NS: u64 = 60_000_000_000;

const DOCUMENT: &str = r#"apiVersion: openslo/v1
kind: SLO
metadata: {name: search}
spec:
  service: shop
  indicator:
    spec:
      ratioMetric:
        good: {metricSource: {type: toolgauge, spec: {where: outcome = 'ok'}}}
        total: {metricSource: {type: toolgauge, spec: {where: kind = 'tool' AND tool_name = 'search'}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
"#;

/// Thirty searches, one a minute, of which the last five have failed; and another tool.
async fn shop() -> Sandbox {
    let sandbox = Sandbox::start().await;
    let first = now_ns() - 31 * MINUTE_NS;
    let spans = (0..30).map(|call| {
        let span = tool_span("search", call + 1, 1, first + call * MINUTE_NS, 1_000_000);
        if call < 25 { span } else { failed(span, "TimeoutError") }
    });
    let mut spans: Vec<_> = spans.collect();
    spans.push(tool_span("other", 99, 1, first, 1_000_000));
    sandbox.client().await.export(TRACES, &request("shop", spans).encode_to_vec()).await;
    sandbox.until_committed().await;
    sandbox
}

#[tokio::test(flavor = "multi_thread")]
async fn slos_are_checked_explained_and_replayed_over_a_server_and_a_folder() {
    let mut sandbox = shop().await;
    let folder = std::mem::replace(&mut sandbox.folder, tempfile::tempdir().unwrap());
    let file = folder.path().join("slo.yaml");
    std::fs::write(&file, DOCUMENT).unwrap();
    let file = file.display().to_string();
    let ask = async |arguments: &[&str]| {
        let mut command = program();
        command.arg("slo").args(arguments);
        let (code, stdout, stderr) = run(command).await;
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        stdout
    };
    let url = sandbox.api.url.clone();
    let server = ["--server", url.as_str()];

    let checked = ask(&["validate", &file, server[0], server[1]]).await;
    assert!(checked.contains("  last 24 h: good 25, bad 5, excluded 0, nulls 0, burn rate 16.67\n"), "{checked}");
    assert!(ask(&["validate", &file]).await.ends_with("1 SLOs, 0 not evaluated, 1 files\n"));
    let listed = ask(&["list", &file, "--format", "csv"]).await;
    assert!(listed.contains("\nshop,search,0.99,30d,events,logical,fast medium slow long-term,"), "{listed}");

    let explained = ask(&["explain", &file, "--format", "json", server[0], server[1]]).await;
    let explained: serde_json::Value = serde_json::from_str(&explained).unwrap();
    let fast = &explained[0]["tiers"][0];
    assert_eq!((&fast["burn_tier"], &fast["factor"]), (&"fast".into(), &"14.4".into()));
    // 14.4 x 0.01 x 3,600 s.
    assert!((fast["detection_s"].as_f64().unwrap() - 518.4).abs() < 1e-6, "{fast}");
    assert_eq!(fast["traffic"][0]["events_per_hour"], 1.25);
    let table = ask(&["explain", &file]).await;
    assert!(
        table.contains("fast: SRE workbook: 2 % of the budget in 1h; fires only with so many bad events"),
        "{table}"
    );

    let replayed = ask(&["backtest", &file, "--last", "1h", "--format", "json", server[0], server[1]]).await;
    let replayed: serde_json::Value = serde_json::from_str(&replayed).unwrap();
    assert_eq!((&replayed[0]["good"], &replayed[0]["bad"]), (&25.into(), &5.into()));
    let tiers: Vec<&str> =
        replayed[0]["episodes"].as_array().unwrap().iter().filter_map(|found| found["burn_tier"].as_str()).collect();
    // At the first failure the tickets burn; pages wait for evidence.
    assert_eq!(tiers, ["long-term", "slow", "fast", "medium"], "{replayed}");
    assert!(replayed[0]["held_back_minutes"]["evidence"].as_u64().unwrap() > 0);

    sandbox.stop().await;
    let data = folder.path().join("data").display().to_string();
    let from_folder = ask(&["validate", &file, "--data", &data]).await;
    assert_eq!(from_folder, checked);

    let mut wrong = program();
    wrong.args(["slo", "backtest", &file]);
    let (code, _, stderr) = run(wrong).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("a backtest needs calls (name `--server URL` or `--data DIR`)"), "{stderr}");
    let mut wrong = program();
    wrong.args(["slo", "validate", &file, "--data", &file]);
    let (code, _, stderr) = run(wrong).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("is no data folder of a server"), "{stderr}");
    let mut wrong = program();
    wrong.args(["slo", "explain", &file, "--slo", "shop/none"]);
    let (code, _, stderr) = run(wrong).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("there is no SLO \"shop/none\" in the files (they have: shop/search)"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_files_slos_are_learned_from_the_calls() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let before = Sandbox::start_with(|config| config.data.clone_from(&data)).await;
    let first = now_ns() - 31 * MINUTE_NS;
    // 1 to 120 ms, of which the first hundred count: the p95 is 95 ms. And names that a model has made up, and one that is seldom called.
    let mut spans: Vec<_> =
        (1..=120).map(|call| tool_span("search", call, 1, first + call * 1_000_000_000, call * 1_000_000)).collect();
    spans.extend((0..150).map(|call| failed(tool_span("ghost", 1_000 + call, 1, first, 1_000_000), "ToolNotFound")));
    spans.extend((0..99).map(|call| tool_span("seldom", 2_000 + call, 1, first, 1_000_000)));
    let mut agent = tool_span("", 3_000, 1, first, 1_000_000);
    agent.attributes = vec![text("gen_ai.operation.name", "invoke_agent"), text("gen_ai.agent.name", "guide")];
    spans.push(agent);
    before.client().await.export(TRACES, &request("shop", spans).encode_to_vec()).await;
    before.until_committed().await;
    before.stop().await;

    let sandbox = Sandbox::start_with(|config| {
        config.data.clone_from(&data);
        config.alerting.learn_slos.0 = true;
    })
    .await;
    let slos = until(LIMIT, "what is learned is evaluated", async || {
        let answer: serde_json::Value = serde_json::from_str(&sandbox.api.get("/api/v1/slos").await.text).ok()?;
        let slos = answer["slos"].as_array()?.clone();
        let is_learning = slos.iter().any(|slo| slo["evaluation"] == "learning");
        (!slos.is_empty() && !is_learning).then_some(slos)
    })
    .await;
    let found: Vec<String> = slos
        .iter()
        .map(|slo| {
            format!("{}/{} {} {}+{}", slo["service"], slo["slo"], slo["target"], slo["good"], slo["bad"])
                .replace('"', "")
        })
        .collect();
    assert_eq!(
        found,
        [
            "agents/sessions-completed 0.95 1+0",
            "tools/search-availability 0.995 120+0",
            "tools/search-latency 0.95 120+0"
        ]
    );
    assert!(slos[2]["description"].as_str().unwrap().contains("successful calls within 200 ms"), "{}", slos[2]);

    let mut command = program();
    command.args(["report", "unknown-tools", "--format", "csv", "--url", &sandbox.api.url]);
    let (code, stdout, _) = run(command).await;
    assert_eq!(code, 0);
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines.len() == 2 && lines[1].starts_with("default,,ghost,150,1,"), "{stdout}");
    sandbox.stop().await;
}
